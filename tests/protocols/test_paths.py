import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskgrant.protocols.paths import PathFault, join_path, join_query, split_path, split_query

GOOD = {
    "/": (),
    "/a/b": ("a", "b"),
    "/a%20b": ("a b",),
    "/%C3%A9": ("é",),
    "/a:b@c,d=e+f": ("a:b@c,d=e+f",),
    "/...": ("...",),
    "/%7Ea": ("~a",),
}


@pytest.mark.parametrize(("path", "segments"), GOOD.items())
def test_plain_paths(path, segments):
    assert split_path(path) == segments
    assert split_path(join_path(segments)) == segments


@pytest.mark.parametrize(
    "path",
    [
        "", "a", "//", "/a/", "/a//b", "/.", "/..", "/a/../b", "/%2e%2e/b", "/%2E", "/.%2e", "/a%2fb", "/a%2Fb",
        "/a%5cb", "/a\\b", "/a;b=c", "/a%3bb", "/%00", "/%0a", "/%7f", "/%252e", "/%25", "/%", "/%zz", "/%e", "/%ff",
        "/%c0%af",
        "/%ed%a0%80", "/é", "/a b", '/a"b', "/a<b", "/a|b", "/a?b", "/a#b", "/%E2%80%A8", "/%u002e",
    ],
)  # fmt: skip
def test_ambiguous_paths_are_refused(path):
    with pytest.raises(PathFault):
        split_path(path)


@given(st.lists(st.text(), max_size=4).map(tuple))
def test_what_is_joined_is_split_again_or_refused(segments):
    try:
        path = join_path(segments)
    except (PathFault, UnicodeEncodeError):
        return
    assert path.isascii()
    assert split_path(path) == segments


@given(st.text(alphabet="/%25eE.a;\\é", max_size=12))
def test_each_path_has_one_form(path):
    try:
        segments = split_path(path)
    except PathFault:
        return
    assert split_path(join_path(segments)) == segments


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", {}),
        ("a=b&c=d%26e", {"a": "b", "c": "d&e"}),
        ("a=x+y", {"a": "x y"}),
        ("a=", {"a": ""}),
        ("a=b=c", {"a": "b=c"}),
        ("a=100%25", {"a": "100%"}),
    ],
)
def test_queries(query, expected):
    assert split_query(query) == expected
    assert split_query(join_query(list(expected.items()))) == expected


@pytest.mark.parametrize(
    "query",
    [
        "a",
        "=b",
        "a=b&",
        "&a=b",
        "a=b&a=c",
        "a=b&%61=c",
        "a=b;c=d",
        "a=%zz",
        "a=%ff",
        "a=%00",
        "a=\u00e9",
        "a b=c",
    ],
)
def test_ambiguous_queries_are_refused(query):
    with pytest.raises(PathFault):
        split_query(query)
