"""Runs ``nft``: the ruleset goes in as one transaction, and what is in force can be read back.

Needs CAP_NET_ADMIN in the user namespace that owns this network namespace, and no other privilege.
"""

import json
import shutil
import subprocess

from taskgrant.errors import TaskgrantError
from taskgrant.wire.redirect.ruleset import FAMILY, TABLE, removal

_SECONDS = 30


def apply(ruleset: str) -> None:
    """All of it or nothing. Raises ``TaskgrantError``."""
    _nft("-f", "-", given=ruleset)


def remove() -> None:
    """Takes our table away, if it is there. Raises ``TaskgrantError``."""
    _nft("-f", "-", given=removal())


def current() -> str | None:
    """Our table as the kernel has it, or None. Raises ``TaskgrantError``."""
    tables = json.loads(_nft("-j", "list", "tables"))["nftables"]
    if not any(
        entry["table"]["family"] == FAMILY and entry["table"]["name"] == TABLE
        for entry in tables
        if "table" in entry
    ):
        return None
    return _nft("list", "table", FAMILY, TABLE)


def _nft(*arguments: str, given: str | None = None) -> str:
    program = shutil.which("nft", path="/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin")
    if program is None:
        raise TaskgrantError("nft is not installed; it is in the package nftables")
    try:
        done = subprocess.run(
            [program, *arguments], input=given, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TaskgrantError(f"nft cannot be run: {error}") from error
    if done.returncode == 0:
        return done.stdout
    said = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
    if any("Operation not permitted" in line or "must be root" in line for line in said):
        raise TaskgrantError("the rules of this network namespace are out of reach: CAP_NET_ADMIN is needed")
    raise TaskgrantError(f"nft refused: {said[0]}")
