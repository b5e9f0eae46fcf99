"""Who may connect, what each role may do, and the socket itself."""

import asyncio
import os
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskgrant.api.config import ControlConfig
from taskgrant.api.routes import ROUTES, Route
from taskgrant.api.server import ControlServer
from taskgrant.errors import ConfigurationError
from taskgrant.model.principal import Role
from tests.api.support import MemoryAuthority, served

ORC, A, D, G, S = Role.ORCHESTRATOR, Role.APPROVER, Role.ADMIN, Role.GUARD, Role.SIDECAR

#: The whole table, written down a second time: a change of who may do what has to be made on purpose.
EXPECTED = {
    "start_task": {ORC},
    "list_tasks": {ORC, A, D},
    "show_task": {ORC, A, D},
    "report_task": {ORC, A, D},
    "complete_task": {ORC},
    "cancel_task": {ORC, D},
    "rotate_handle": {ORC},
    "request_grants": {ORC},
    "list_grants": {ORC, A, D},
    "show_grant": {ORC, A, D},
    "approve_grant": {A},
    "reject_grant": {A},
    "revoke_grant": {ORC, D},
    "freeze": {D},
    "unfreeze": {D},
    "events": {ORC, A, D, G, S},
    "acknowledge": {G, S},
    "enrol": {G},
    "issue": {S},
    "introspect": {G},
    "jwks": {ORC, A, D, G, S},
    "bundle": {ORC, A, D, G, S},
    "crl": {ORC, A, D, G, S},
    "describe": {ORC, A, D, G, S},
}


def test_the_role_table_is_the_one_that_is_meant() -> None:
    assert {route.name: set(route.roles) for route in ROUTES} == EXPECTED


@pytest.mark.parametrize("role", list(Role))
async def test_each_route_lets_in_its_roles_and_no_other(tmp_path: Path, role: Role) -> None:
    async with served(tmp_path, [role]) as api:
        for route in ROUTES:
            path = route.path.replace("{id}", "none").replace("{server}", "mail")
            # ``limit``: an event stream would go on for ever; a query that is refused shows that the role passed.
            query = "?wrong=1" if route.name == "events" else ""
            answer = await api.ask(route.method, path + query)
            refused = answer.status == 403 and answer.json["code"] == "forbidden"
            assert refused == (role not in route.roles), (route.name, answer.raw)


async def test_a_uid_without_a_role_is_refused_before_anything_else(tmp_path: Path) -> None:
    async with served(tmp_path, roles={Role.ADMIN: (os.getuid() + 1,)}) as api:
        for route in [*ROUTES, Route("GET", "/no/such/path", ROUTES[0].handler, "", frozenset())]:
            assert (await api.problem(route.method, route.path))["code"] == "forbidden"
        assert (await api.problem("POST", "/v1/tasks", data=b"{" * 100))["code"] == "forbidden"


CHILD = """
import os, socket, sys
os.setgroups([]); os.setuid(65534)
peer = socket.socket(socket.AF_UNIX); peer.settimeout(10)
try:
    peer.connect(sys.argv[1])
except PermissionError:
    print("closed"); sys.exit()
peer.sendall(b"GET /v1/tasks HTTP/1.1\\r\\nHost: c\\r\\nConnection: close\\r\\n\\r\\n")
answer = b""
while chunk := peer.recv(65536):
    answer += chunk
print(answer.decode().splitlines()[0])
"""


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A directory that other uids can enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another uid")
async def test_another_uid_is_known_by_the_kernel_s_word(reachable: Path) -> None:
    async def status(path: Path) -> str:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CHILD, str(path), stdout=asyncio.subprocess.PIPE
        )
        return (await child.communicate())[0].decode().strip()

    async with served(reachable) as api:  # it shares our group, so that it can connect, but has no role
        assert await status(api.socket) == "HTTP/1.1 403 Forbidden"
    async with served(reachable, mode=0o600) as api:
        assert await status(api.socket) == "closed"
    async with served(reachable, roles={Role.ADMIN: (65534,)}) as api:
        assert await status(api.socket) == "HTTP/1.1 200 OK"


def control(path: Path, **members: object) -> ControlConfig:
    return ControlConfig.model_validate({"socket": path / "s" / "control.sock", **members})


def test_the_agent_must_have_no_role_unless_it_is_said_so(tmp_path: Path) -> None:
    config = control(tmp_path, roles={"orchestrator": [1000], "admin": [0]})
    with pytest.raises(ConfigurationError, match="agent's uid 1000 has the roles orchestrator"):
        ControlServer(MemoryAuthority(), config, agent_uids={1000})
    ControlServer(MemoryAuthority(), config, agent_uids={1000}, own_orchestrator=True)
    ControlServer(MemoryAuthority(), config, agent_uids={1001})
    with pytest.raises(ConfigurationError, match="agent's uid 1000 has") as wrong:
        ControlServer(MemoryAuthority(), config, agent_uids=range(1, 1 << 32))
    assert len(wrong.value.faults) == 1
    with pytest.raises(ConfigurationError) as wrong:
        ControlServer(MemoryAuthority(), config, agent_uids=range(1 << 32))
    assert len(wrong.value.faults) == 2


def test_every_unknown_account_is_named(tmp_path: Path) -> None:
    config = control(tmp_path, roles={"approver": ["no-such-user", "root"], "admin": ["nor-this-one"]})
    with pytest.raises(ConfigurationError) as wrong:
        ControlServer(MemoryAuthority(), config)
    assert len(wrong.value.faults) == 2


async def test_the_socket_is_private_and_goes_away(tmp_path: Path) -> None:
    server = ControlServer(MemoryAuthority(), control(tmp_path))
    await server.start()
    assert stat.S_IMODE(server.socket_path.stat().st_mode) == 0o660
    assert stat.S_IMODE(server.socket_path.parent.stat().st_mode) == 0o700
    await server.stop()
    assert not server.socket_path.exists()
    await server.stop()


async def test_a_group_can_enter_the_directory(tmp_path: Path) -> None:
    server = ControlServer(MemoryAuthority(), control(tmp_path, group=os.getgid()))
    await server.start()
    assert stat.S_IMODE(server.socket_path.parent.stat().st_mode) == 0o750
    await server.stop()


async def test_what_a_dead_process_left_is_replaced(tmp_path: Path) -> None:
    config = control(tmp_path)
    config.socket.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(config.socket))
    server = ControlServer(MemoryAuthority(), config)
    await server.start()
    await server.stop()


async def test_a_socket_that_answers_is_not_taken(tmp_path: Path) -> None:
    first, second = (ControlServer(MemoryAuthority(), control(tmp_path)) for _ in range(2))
    await first.start()
    with pytest.raises(ConfigurationError, match="another process answers"):
        await second.start()
    await second.stop()
    assert first.socket_path.exists()
    await first.stop()


async def test_a_place_that_cannot_be_used_is_said_so(tmp_path: Path) -> None:
    async def fault(path: Path, **members: object) -> str:
        config = ControlConfig.model_validate({"socket": path, **members})
        with pytest.raises(ConfigurationError) as wrong:
            await ControlServer(MemoryAuthority(), config).start()
        return wrong.value.faults[0]

    (tmp_path / "file").write_text("")
    assert "is no socket" in await fault(tmp_path / "file")
    assert "cannot listen" in await fault(tmp_path / "file" / "control.sock")
    assert "longer than" in await fault(tmp_path / ("x" * 120))
    assert "there is no group" in await fault(tmp_path / "c.sock", group="no-such-group")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    assert "others can replace files" in await fault(tmp_path / "open" / "control.sock")


def test_the_mode_is_octal_in_any_spelling() -> None:
    for mode in ("0660", "0o660", 0o660):
        assert ControlConfig.model_validate({"mode": mode}).mode == 0o660
    for mode in ("rw", 0o666, "0666"):
        with pytest.raises(ValueError, match="mode"):
            ControlConfig.model_validate({"mode": mode})
    assert ControlConfig().roles[Role.ADMIN] == (os.getuid(),)
