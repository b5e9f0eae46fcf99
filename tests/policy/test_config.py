"""The configuration section, and where our own policies are."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from taskgrant.errors import ConfigurationError
from taskgrant.policy.config import OpaConfig, PolicyConfig
from taskgrant.policy.library import library


def test_defaults() -> None:
    config = PolicyConfig()
    assert (config.deadline_ms, config.memory_mib, config.directories) == (250, 256, ())
    assert config.opa == OpaConfig()


def test_one_opa_only() -> None:
    with pytest.raises(ValidationError, match="exclude each other"):
        OpaConfig(binary="opa", socket=Path("/run/opa.sock"))
    with pytest.raises(ValidationError, match="started here"):
        PolicyConfig(opa=OpaConfig(socket=Path("/run/opa.sock")), directories=(Path("policy"),))


@pytest.mark.parametrize("name", ["deadline_ms", "memory_mib"])
def test_bounds(name: str) -> None:
    with pytest.raises(ValidationError, match=name):
        PolicyConfig.model_validate({name: 0})


def test_our_policies_are_in_the_package_or_in_the_tree(tmp_path: Path) -> None:
    assert (library() / "schemas" / "authz_input.json").is_file()
    with pytest.raises(ConfigurationError, match="own policies are missing"):
        library(tmp_path / "sidecar" / "taskgrant")
    (tmp_path / "rego" / "taskgrant").mkdir(parents=True)
    assert library(tmp_path / "sidecar" / "taskgrant") == tmp_path / "rego"
    (tmp_path / "sidecar" / "taskgrant" / "rego" / "taskgrant").mkdir(parents=True)
    assert library(tmp_path / "sidecar" / "taskgrant") == tmp_path / "sidecar" / "taskgrant" / "rego"
