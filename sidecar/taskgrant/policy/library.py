"""Where our own policies are: ``taskgrant/rego`` in an installed package, ``rego/`` in a source tree."""

from pathlib import Path

from taskgrant.errors import ConfigurationError

_PACKAGE = Path(__file__).resolve().parent.parent


def library(package: Path = _PACKAGE) -> Path:
    """The directory that holds ``taskgrant/`` (Rego) and ``schemas/``. Raises ``ConfigurationError`` without one."""
    for candidate in (package / "rego", package.parent.parent / "rego"):
        if (candidate / "taskgrant").is_dir():
            return candidate
    raise ConfigurationError(
        [f"taskgrant's own policies are missing: no rego/taskgrant in or above {package}"]
    )
