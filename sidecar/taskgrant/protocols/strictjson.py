"""JSON that reaches a tool: as strict as all that we read, and in one compact form out.

Some servers match names loosely (Go's ``encoding/json`` and others), so names that differ only in case are refused too,
in every object of the document, the arguments of a tool included: the few tools that want both ``id`` and ``ID`` in one
object cannot be called.
"""

from taskgrant.model.decoding import Decoder, JsonFault, Pairs, encode, repeated, unique
from taskgrant.model.json import Json

__all__ = ["JsonFault", "decode", "encode", "fold"]


def fold(name: str) -> str:
    """What readers that ignore case compare: at least all that Unicode simple and full case folding identify.

    ``ſ`` and the Kelvin sign fold to ``s`` and ``k`` as in Go's ``strings.EqualFold``; the dotted and the dotless i
    fold to ``i``, as in Java's ``equalsIgnoreCase``.
    """
    if name.isascii():
        return name.lower()
    return name.upper().casefold().replace("i\u0307", "i")


def _object(pairs: Pairs) -> dict[str, Json]:
    members = unique(pairs)
    if len(members) < 2:
        return members
    # On the path of every call: most objects have ASCII names only, where folding is lower case and costs no call.
    folder = str.lower if "".join(members).isascii() else fold
    if len(set(map(folder, members))) != len(members):
        again = repeated(fold(name) for name in members)
        raise JsonFault(f"two members differ from {again!r} in case only")
    return members


decode = Decoder(_object).decode
