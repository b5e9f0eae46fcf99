from dataclasses import replace

from mcp_types import methods as sdk

from taskgrant.protocols.mcp.methods import (
    NOTIFICATIONS,
    REQUESTS,
    TYPES,
    Era,
    Method,
    negotiate,
    spoken,
)
from tests.protocols.mcp.support import LEGACY, MODERN, OLD_SERVER, SERVER


def era(version: str) -> Era:
    return Era.MODERN if version == MODERN else Era.LEGACY


def members(model: type) -> set[str]:
    params = model.model_fields["params"].annotation  # type: ignore[attr-defined]
    fields = getattr(params, "model_fields", {})
    return {field.alias or name for name, field in fields.items()} - {"_meta"}


def listed(name: str, method: Method) -> set[str]:
    own = {"name", "arguments"} if name == "tools/call" else set()
    return {*method.arguments, *method.params, *own}


def test_the_table_has_every_method_and_member_of_the_schema():
    for requests, table in ((sdk.CLIENT_REQUESTS, REQUESTS), (sdk.CLIENT_NOTIFICATIONS, NOTIFICATIONS)):
        for (name, version), model in requests.items():
            if version != "2024-11-05":
                assert era(version) in table[name].eras, (name, version)
                assert members(model) <= listed(name, table[name]), (name, version)


def test_every_member_has_a_type():
    for table in (REQUESTS, NOTIFICATIONS):
        for name, method in table.items():
            assert listed(name, method) <= TYPES.keys()
            assert {*method.required} <= listed(name, method)
            assert method.named is None or method.named in method.required


def test_versions():
    assert spoken(OLD_SERVER) == ("2025-03-26", "2025-06-18", "2025-11-25")
    assert spoken(replace(SERVER, versions=(MODERN, LEGACY, "x"))) == (LEGACY, MODERN)
    assert negotiate(replace(SERVER, versions=(MODERN,)), LEGACY) is None
    assert negotiate(SERVER, "2025-06-18") == "2025-06-18"
