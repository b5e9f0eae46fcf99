"""``tools/podman``, and the images of the tests."""

import faulthandler
import os
import shutil
import subprocess
from dataclasses import dataclass

from tests.conftest import REPOSITORY

_TOOLS = REPOSITORY / "tools"
#: The cold build makes a base and installs everything into it.
_BUILD_SECONDS = 1500


def missing() -> str | None:
    """Why there are no containers here; None if there can be."""
    if os.geteuid() != 0:
        return "runs containers, which takes root"
    programs = [
        program for program in ("podman", "runc", "mmdebstrap", "go") if shutil.which(program) is None
    ]
    return f"runs containers, which takes {', '.join(programs)}" if programs else None


@dataclass(frozen=True)
class Images:
    ours: str
    base: str  # Debian with Python, of which ours is made


def images() -> Images:
    # The cold build takes longer than a test may hang; it has a limit of its own.
    faulthandler.cancel_dump_traceback_later()
    done = subprocess.run(
        [_TOOLS / "local-image"], capture_output=True, text=True, timeout=_BUILD_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    return Images(*done.stdout.split())


def podman(*arguments: str, status: int | None = 0) -> subprocess.CompletedProcess[str]:
    """Fails when the command ends with another status; None is any."""
    done = subprocess.run(
        [_TOOLS / "podman", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert status in (None, done.returncode), (
        f"podman {arguments}: {done.returncode}: {done.stdout}{done.stderr}"
    )
    return done
