"""A private copy of all policy and data, so that what was checked is what runs, and stays so across restarts.

Copied are ``*.rego`` (not ``*_test.rego``), ``*.json``, ``*.yaml`` and ``*.yml``; hidden files are left out. Data is
merged from the root of each directory, as OPA reads it: ``boundaries.yaml`` holds ``taskgrant: {boundaries: …}``; a
file in a subdirectory has its path before it (``taskgrant/data.yaml`` holds ``boundaries: …``).
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from taskgrant.errors import ConfigurationError

_SUFFIXES = frozenset({".rego", ".json", ".yaml", ".yml"})
_REVISION_DIGITS = 12
_COPY = re.compile(r"(?<![\w/.-])([0-9]+)/([^\s:]+\.(?:rego|json|ya?ml))")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """``directories`` are the copies, in order; ``revision`` depends on names and bytes, not on where they lay."""

    directories: tuple[Path, ...]
    originals: tuple[Path, ...]
    revision: str

    def original(self, text: str) -> str:
        """What OPA says about ``<number>/<file>``, seen from the folder of the copies, with the author's own paths."""

        def path(found: re.Match[str]) -> str:
            number = int(found[1])
            return str(self.originals[number] / found[2]) if number < len(self.originals) else found[0]

        return _COPY.sub(path, text)


def take(library: Path, directories: Iterable[Path], into: Path) -> Snapshot:
    """Copies our Rego and the author's directories into ``into``, which only we can read.

    Raises ``ConfigurationError`` with every fault: a directory that is missing, a link that leads out of it, a file
    that cannot be read or is none.
    """
    into.mkdir(mode=0o700)
    originals = (library / "taskgrant", *directories)
    copies = tuple(into / str(number) for number in range(len(originals)))
    digest = hashlib.sha256()
    faults: list[str] = []
    for copy, original in zip(copies, originals, strict=True):
        copy.mkdir(mode=0o700)
        try:
            for path in _files(original, faults):
                relative = path.relative_to(original)
                content = path.read_bytes()
                target = copy / relative
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                target.write_bytes(content)
                for part in (f"{copy.name}/{relative.as_posix()}".encode(), content):
                    digest.update(len(part).to_bytes(8, "big") + part)
        except OSError as error:
            faults.append(f"{error.filename}: {error.strerror}")
    if faults:
        raise ConfigurationError(faults)
    return Snapshot(copies, originals, digest.hexdigest()[:_REVISION_DIGITS])


def _files(root: Path, faults: list[str]) -> Iterator[Path]:
    """What OPA is to load, in one order on every machine."""
    if not root.is_dir():
        faults.append(f"{root}: no such directory")
        return
    inside = root.resolve()

    def refuse(error: OSError) -> None:
        faults.append(f"{error.filename}: {error.strerror}")

    for folder, folders, names in os.walk(root, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(folders + names):
            path = Path(folder, name)
            if name.startswith("."):
                continue
            if path.is_symlink() and not path.resolve().is_relative_to(inside):
                faults.append(f"{path}: is a link that leads out of {root}")
            elif name in folders:
                if path.is_symlink():
                    faults.append(f"{path}: is a link to a directory, which is not followed")
            elif path.suffix not in _SUFFIXES or name.endswith("_test.rego"):
                continue
            elif not path.is_file():
                faults.append(f"{path}: is no file")
            else:
                yield path
