"""What keeps a client from being work without asking for anything: frames that are no request cost, and pay runs out.

========  ==============================================================================  ======================
purse     paid for                                                                        filled
========  ==============================================================================  ======================
resets    RST_STREAM (rapid reset: requests that are begun and dropped)                   with time
control   everything else but HEADERS and DATA that carries something: PING, SETTINGS,    with time, and by each
          PRIORITY, WINDOW_UPDATE, CONTINUATION, empty DATA, frames of unknown types      DATA frame that we send
========  ==============================================================================  ======================

Who downloads much has to grant windows often, and pays with what was downloaded. Pure: the time is handed in.
"""

from dataclasses import dataclass
from typing import Final

from taskgrant.errors import Refused
from taskgrant.model.codes import Code
from taskgrant.protocols.http2 import Frame, FrameType

#: A body that comes in smaller pieces than this, but for its last, is taken apart to make work.
_SMALL: Final = 64
_PER_DATA_SENT: Final = 4.0


@dataclass(slots=True)
class Purse:
    """Holds at most ``size``, and is filled by so much a second."""

    size: float
    per_second: float
    held: float
    at: float

    def pay(self, now: float) -> bool:
        self.held = min(self.size, self.held + (now - self.at) * self.per_second)
        self.at = now
        self.held -= 1
        return self.held >= 0

    def fill(self, amount: float) -> None:
        self.held = min(self.size, self.held + amount)


class Tolls:
    """Of one connection that was made ``now``."""

    def __init__(self, now: float) -> None:
        self._resets = Purse(200.0, 20.0, 200.0, now)
        self._control = Purse(1000.0, 100.0, 1000.0, now)

    def pay(self, frame: Frame, now: float) -> None:
        """Raises ``errors.Refused`` (overloaded) when the client cannot pay for what it sends."""
        if frame.kind == FrameType.RST_STREAM:
            if not self._resets.pay(now):
                raise Refused(Code.OVERLOADED, "the client drops requests faster than they can be served")
        elif _is_control(frame) and not self._control.pay(now):
            raise Refused(
                Code.OVERLOADED, "the client sends frames that ask for nothing faster than is taken"
            )

    def sent(self) -> None:
        """A DATA frame has gone to the client."""
        self._control.fill(_PER_DATA_SENT)


def _is_control(frame: Frame) -> bool:
    if frame.kind == FrameType.HEADERS or frame.ends_stream:
        return False
    return frame.kind != FrameType.DATA or frame.length < _SMALL
