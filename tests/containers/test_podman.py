"""What a machine without containers is told."""

import os

from tests.containers.podman import missing


def test_what_is_missing_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert missing() == "runs containers, which takes podman, runc, mmdebstrap, go"
    for name in ("podman", "runc", "go"):
        (tmp_path / name).touch(0o755)
    assert missing() == "runs containers, which takes mmdebstrap"
    (tmp_path / "mmdebstrap").touch(0o755)
    assert missing() is None
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert missing() == "runs containers, which takes root"
