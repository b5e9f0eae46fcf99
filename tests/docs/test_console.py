"""The reader of console blocks: what is a command, what is output, and when the two agree."""

from tests.docs.console import Step, agrees, steps

_PAGE = """\
Text.

```console
$ one \\
  --more
seen
$ cat > file <<'EOF'
$ not a command
EOF
$ three 'a
b'
```

```sh
$ not run
```

```console
$ four
```
"""


def test_commands_and_what_they_print_are_told_apart():
    assert steps(_PAGE) == [
        Step(4, "one \\\n  --more", ("seen",)),
        Step(7, "cat > file <<'EOF'\n$ not a command\nEOF", ()),
        Step(10, "three 'a\nb'", ()),
        Step(19, "four", ()),
    ]


def test_an_ellipsis_stands_for_anything_and_nothing_else_does():
    assert agrees(("id task-…  active",), "id task-12  active\n")
    assert agrees(("a", "…", "z"), "a\nb\nc\n\nz\n")
    assert agrees(("…",), "")
    assert agrees((), "")
    assert not agrees((), "something\n")
    assert not agrees(("a.c",), "abc\n")
    assert not agrees(("a", "…"), "b\n")
    assert not agrees(("a",), "a\nb\n")
