"""Command lines as another user, where Python, its packages, the project or OPA may lie in a folder of root's alone.

In a mount namespace of its own the command finds what it needs at the usual paths; the folders that keep others out
are covered there by empty ones that do not. Nothing outside of the namespace changes.
"""

import os
import stat
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

#: Arguments: uid, groups, a folder for its own use, then folders to cover, "--", folders to keep, "--", the command.
_SCRIPT = r"""
set -eu
uid=$1 groups=$2 stash=$3; shift 3
covered="" kept="" count=0
while [ "$1" != -- ]; do covered="$covered $1"; shift; done; shift
while [ "$1" != -- ]; do kept="$kept $1"; shift; done; shift
mount -t tmpfs -o mode=755 none "$stash"
for path in $kept; do
  count=$((count + 1)); mkdir "$stash/$count"; mount --bind "$path" "$stash/$count"
done
for path in $covered; do mount -t tmpfs -o mode=755 none "$path"; done
count=0
for path in $kept; do
  count=$((count + 1)); mkdir -p "$path"; mount --bind "$stash/$count" "$path"
done
exec setpriv --reuid "$uid" --regid "$uid" --groups "$groups" --inh-caps=-all --no-new-privs -- "$@"
"""


def as_user(uid: int, folder: Path, *more: Path, groups: str | None = None) -> tuple[str, ...]:
    """The prefix of a command line. ``folder`` is the test's own; ``more`` are folders that the command needs."""
    needed = {path.resolve() for path in (Path(sys.base_prefix), Path(sys.prefix), REPOSITORY, *more)}
    closed = {path: _closed(path) for path in needed}
    kept = sorted(str(path) for path, covers in closed.items() if covers)
    covered = sorted({str(covers) for covers in closed.values() if covers})
    stash = folder / "stash"
    stash.mkdir(exist_ok=True)
    return (
        "unshare", "--mount", "sh", "-c", _SCRIPT, "sh", str(uid), groups or str(uid), str(stash),
        *covered, "--", *kept, "--",
    )  # fmt: skip


def _closed(path: Path) -> Path | None:
    """The topmost folder on the way that others cannot pass."""
    for folder in reversed(path.parents):
        if not os.stat(folder).st_mode & stat.S_IXOTH:
            return folder
    return None
