"""What the pages say against what the code has: codes, metrics, audit events, links."""

import json
import re
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from taskgrant.api.problems import STATUSES
from taskgrant.model.call import Kind, Malformed, Refusal
from taskgrant.model.codes import Code
from taskgrant.model.schema import SchemaFault, canonical
from taskgrant.protocols.http import HttpCodec
from taskgrant.protocols.mcp.methods import NOTIFICATIONS, REQUESTS, TOOLS_CALL
from tests.conftest import REPOSITORY
from tests.e2e.processes import installation

DOCS = REPOSITORY / "docs"
PAGES = sorted([REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md", *DOCS.glob("*.md")])


def rows(page: str, column: str = r"`([a-z_.]+)`") -> list[tuple[str, ...]]:
    """The cells of the tables' rows whose first cell is a name in code type."""
    lines = [line for line in (DOCS / page).read_text().splitlines() if re.match(rf"\| {column} \|", line)]
    # A pipe in a cell is written \|.
    return [tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]) for line in lines]


def test_each_code_has_a_row_and_each_row_a_code():
    told = [row[0].strip("`") for row in rows("codes.md")]
    assert told == [code.value for code in Code]


@pytest.mark.parametrize("row", rows("codes.md"), ids=lambda row: row[0].strip("`"))
def test_a_code_has_the_statuses_that_its_row_says(row):
    code = Code(row[0].strip("`"))
    if code is Code.GRANTED:
        assert row[2:4] == ("–", "–")
        return
    http = HttpCodec().refuse(Malformed(code, ""), Refusal(code, "a reason"))
    assert row[2:4] == (str(http.status), str(STATUSES[code]))


def test_each_metric_is_in_the_page_and_each_in_the_page_exists(tmp_path, opa_binary):
    with installation(tmp_path, opa_binary) as place:
        place.servers["office"] = {"protocol": "mcp", "upstream": "https://127.0.0.1:9/mcp"}
        place.run()
        with urllib.request.urlopen(f"{place.addresses['admin']}/metrics", timeout=30) as answer:  # noqa: S310
            exposed = list(text_string_to_metric_families(answer.read().decode()))
    # A counter's samples end in _total; _created says when a series began.
    names = {one.name + ("_total" if one.type == "counter" else "") for one in exposed}
    names = {name for name in names if not name.endswith("_created")}
    assert {
        row[0].strip("`") for row in rows("metrics.md") if row[1] in ("counter", "gauge", "histogram")
    } == names


def test_each_audit_event_is_in_the_page():
    sources = (REPOSITORY / "sidecar" / "taskgrant").rglob("*.py")
    written = {name for path in sources for name in re.findall(r'\bRecord\(\s*"([a-z.]+)"', path.read_text())}
    assert written
    told = {row[0].strip("`") for row in rows("audit.md") if "." in row[0]}
    assert told == written


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", page.read_text())):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = page if not path else (page.parent / path).resolve()
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(file.read_text()), f"{page.name}: {target}"


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as forges make them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def schemas(heading: str) -> list[str]:
    """The first cells of the table under a heading cell, which are JSON."""
    lines = iter((DOCS / "grants.md").read_text().splitlines())
    next(line for line in lines if line.startswith("| schema |") and heading in line)
    next(lines)
    return [line.split("` |")[0].removeprefix("| `") for line in iter(lines.__next__, "")]


@pytest.mark.parametrize("schema", schemas("accepted"))
def test_schemas_that_the_page_calls_accepted_are(schema):
    canonical(json.loads(schema))


@pytest.mark.parametrize("schema", schemas("refused"))
def test_schemas_that_the_page_calls_refused_are(schema):
    with pytest.raises(SchemaFault):
        canonical(json.loads(schema))


def test_what_grants_name_beside_tools_is_what_the_codec_has():
    told = {row[0].strip("`"): row for row in rows("grants.md", r"`([a-z/A-Z]+)`") if len(row) == 3}
    uses = {name: method for name, method in REQUESTS.items() if method.kind is Kind.TOOL}
    assert told.keys() == uses.keys()
    for name, method in uses.items():
        if name != TOOLS_CALL:
            assert told[name][1:] == (f"`mcp:{name}`", ", ".join(f"`{each}`" for each in method.arguments))


def test_each_method_is_on_the_page_about_mcp():
    told = {row[0].strip("`") for row in rows("mcp.md", r"`([a-z/A-Z_]+)`")}
    assert told >= {*REQUESTS, *NOTIFICATIONS}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page):
    named = re.findall(r"`((?:tests|sidecar|rego|examples|docs)/[\w./-]+)`", page.read_text())
    assert [name for name in named if not (REPOSITORY / name).exists()] == []
