"""What is copied, what is refused, what the revision depends on."""

import os
from pathlib import Path

import pytest

from taskgrant.errors import ConfigurationError
from taskgrant.policy.library import library
from taskgrant.policy.snapshot import take


def _author(folder: Path) -> Path:
    (folder / "sub" / ".git").mkdir(parents=True)
    for name in (
        "a.rego",
        "a_test.rego",
        "sub/data.yaml",
        "sub/x.json",
        "notes.md",
        ".hidden.rego",
        "sub/.git/x.json",
    ):
        (folder / name).write_text(f"# {name}\n")
    return folder


def test_copies_policy_and_data_only(tmp_path: Path) -> None:
    snapshot = take(library(), [_author(tmp_path / "author")], tmp_path / "into")
    ours, copy = snapshot.directories
    assert (ours / "authz" / "authz.rego").is_file()
    assert not list(ours.rglob("*_test.rego"))
    found = sorted(path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file())
    assert found == ["a.rego", "sub/data.yaml", "sub/x.json"]
    assert (tmp_path / "into").stat().st_mode & 0o777 == 0o700
    assert snapshot.original("1/sub/x.json") == str(tmp_path / "author" / "sub" / "x.json")
    assert snapshot.original("elsewhere.rego") == "elsewhere.rego"


def test_revision_follows_names_and_bytes(tmp_path: Path) -> None:
    def revision(name: str, files: dict[str, str]) -> str:
        folder = tmp_path / name / "author"
        folder.mkdir(parents=True)
        for file, text in files.items():
            (folder / file).write_text(text)
        return take(library(), [folder], tmp_path / name / "into").revision

    base = revision("base", {"a.rego": "x"})
    assert base == revision("same", {"a.rego": "x", "a_test.rego": "not loaded"})
    assert (
        len(
            {
                base,
                revision("bytes", {"a.rego": "y"}),
                revision("name", {"b.rego": "x"}),
                revision("none", {}),
            }
        )
        == 4
    )


def test_refuses_links_that_lead_out_and_what_is_no_file(tmp_path: Path) -> None:
    author = _author(tmp_path / "author")
    (tmp_path / "secret.json").write_text("{}")
    (author / "out.json").symlink_to(tmp_path / "secret.json")
    (author / "in.rego").symlink_to(author / "a.rego")
    (author / "loop").symlink_to(author / "sub")
    os.mkfifo(author / "pipe.rego")
    with pytest.raises(ConfigurationError) as caught:
        take(library(), [author, tmp_path / "missing"], tmp_path / "into")
    assert sorted(caught.value.faults) == [
        f"{author}/loop: is a link to a directory, which is not followed",
        f"{author}/out.json: is a link that leads out of {author}",
        f"{author}/pipe.rego: is no file",
        f"{tmp_path}/missing: no such directory",
    ]
