"""The page on the configuration is what the models say, and they say something of each setting."""

from tests.conftest import REPOSITORY
from tools.configuration_reference import page


def test_the_committed_page_is_what_is_generated():
    committed = (REPOSITORY / "docs" / "configuration.md").read_text()
    assert committed == page(), (
        "run: .venv/bin/python -m tools.configuration_reference > docs/configuration.md"
    )


def test_each_setting_has_a_meaning():
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    assert len(rows) > 70
    assert [row for row in rows if row.endswith("|  |")] == []
