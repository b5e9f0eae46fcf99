"""Fixtures and rules for all tests.

`--no-skips` (on when `CI=true`) turns a skip or an expected failure into a failure: in CI every test runs.

With `-n`, the tests of a file run one after the other in one process, and so do all those that need something of the
machine of which there is one: addresses, ports, container storage.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
_TEMPORARY = pytest.StashKey[str]()
_OF_THE_MACHINE = ("tests/net", "tests/containers", "tests/docs/test_commands.py")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-skips",
        action="store_true",
        default=os.environ.get("CI") == "true",
        help="fail on each test that is skipped or expected to fail (default: on when CI=true)",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # A short one: Unix sockets are made below it, whose paths have 107 bytes at most.
    if config.option.basetemp is None and not hasattr(config, "workerinput"):
        config.option.basetemp = config.stash[_TEMPORARY] = tempfile.mkdtemp(prefix="tg-")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    # What a test has left is of use when it failed.
    if exitstatus == 0 and _TEMPORARY in session.config.stash:
        shutil.rmtree(session.config.stash[_TEMPORARY], ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        path = item.path.relative_to(REPOSITORY)
        one = any(path.is_relative_to(each) for each in _OF_THE_MACHINE)
        item.add_marker(pytest.mark.xdist_group("machine" if one else str(path)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and item.config.getoption("--no-skips"):
        _fail(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped and collector.config.getoption("--no-skips"):
        _fail(report)
    return report


def _fail(report: pytest.TestReport | pytest.CollectReport) -> None:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else getattr(report, "wasxfail", "")
    report.outcome = "failed"
    report.longrepr = f"skips are not allowed here: {reason}"


@pytest.fixture(scope="session")
def opa_binary() -> Path:
    """A real OPA: `$TASKGRANT_OPA`, or what `tools/install-opa` finds or builds."""
    found = subprocess.run(
        [REPOSITORY / "tools" / "install-opa"], check=True, stdout=subprocess.PIPE, text=True
    )
    return Path(found.stdout.strip())
