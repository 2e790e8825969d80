"""What quickstart asks of the command line: only what is not there yet, in an order that works.

The command line is a recorder here that keeps names in a JSON file and refuses what the
real one would refuse; tests/e2e runs quickstart with the real one.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from blocks.errors import Conflict, NeedsAttention
from deployments import daemons, libvirt_daemons, processes, quickstart, takedown, units
from deployments.fifty_command import CommandFailed, FiftyCommand
from deployments.prefect_server import Server
from deployments.service import record

_RECORDER = """#!{python}
import json, os, pathlib, sys
home = pathlib.Path(os.environ["FIFTY_HOME"])
world = json.loads((home / "world.json").read_text())
words = [word for word in sys.argv[1:] if word != "--json"]
world["calls"].append(" ".join(words))
kind, action, name = (words + ["", ""])[:3]
said, code = {{}}, 0
routers = world["router"].values()
in_use = action == "delete" and (
    kind == "router"
    and any(leg["network"] in world["network"] for leg in world[kind][name]["interfaces"])
    or kind == "network" and any(router["gateway"] == {{"network": name}} for router in routers)
    or kind == "image" and world["vm"]
)
if " ".join(words[:3]) in world["refuse"] or in_use:
    said, code = {{"error": "Conflict", "message": "not now", "hint": "wait", "details": []}}, 1
elif action == "list":
    said = [dict(item, name=key, id=key) for key, item in world[kind].items()]
elif action in ("create", "build"):
    status = "active" if kind == "image" else "ACTIVE"
    external = "--external" in words
    world[kind][name] = {{"status": status, "outside": words[-1], "external": external}}
    if kind == "router":
        world[kind][name] = {{"gateway": None, "interfaces": []}}
elif action == "set-gateway":
    world[kind][name]["gateway"] = {{"network": words[3]}}
elif action == "add-interface":
    world[kind][name]["interfaces"].append({{"network": words[3]}})
elif action == "delete":
    del world[kind][name]
elif action == "resume":
    world[kind][name]["status"] = "ACTIVE"
elif kind == "init":
    (home / "state.db").touch()
(home / "world.json").write_text(json.dumps(world))
print(json.dumps(said))
sys.exit(code)
"""


class World:
    """What the recorder keeps."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.file = home / "world.json"
        self.change(calls=[], refuse=[], vm={}, network={}, router={}, image={})

    def read(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.file.read_text())
        return content

    def change(self, **values: object) -> None:
        before = self.read() if self.file.exists() else {}
        self.file.write_text(json.dumps({**before, **values}))

    def changes(self) -> list[str]:
        """The calls that were not only questions; forgets them."""
        calls = [call for call in self.read()["calls"] if " list" not in call]
        self.change(calls=[])
        return calls


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    def no_daemons(home: Path, *, as_units: bool = False) -> Server:
        assert not as_units or units.systemd_runs()
        return Server(process=processes.Process(pid=1, start=0, boot=""), port=4200)

    def no_service(home: Path, *, as_units: bool) -> record.Serving:
        assert as_units == units.systemd_runs()
        me = processes.identify(os.getpid())
        assert me is not None
        return record.Serving(process=me, since=datetime.now(UTC))

    monkeypatch.setattr(daemons, "start", no_daemons)
    monkeypatch.setattr(daemons, "stop", lambda home: [])
    monkeypatch.setattr(daemons, "start_service", no_service)
    monkeypatch.setattr(daemons, "stop_service", lambda home: False)
    home = tmp_path / "home"
    daemons.prepare_home(home)
    return World(home)


@pytest.fixture
def fifty(world: World, tmp_path: Path) -> FiftyCommand:
    program = tmp_path / "fifty"
    program.write_text(_RECORDER.format(python=sys.executable))
    program.chmod(0o755)
    return FiftyCommand(world.home, program)


LOGIN = ["vm ssh hello -- uname -a; hostname; ip -4 -o addr show; df -h /"]
CREATE = ["vm create hello --image micro --flavor tiny --network lab"]


def test_first_run_makes_all_and_the_second_nothing(world: World, fifty: FiftyCommand) -> None:
    quickstart.set_up(world.home, fifty)
    assert world.changes() == [
        "init",
        "image build micro",
        "network create external --cidr 172.24.4.0/24 --type flat --external --outside closed",
        "network create lab --cidr 192.168.50.0/24",
        "router create lab-router",
        "router set-gateway lab-router external",
        "router add-interface lab-router lab",
        *CREATE,
        *LOGIN,
    ]
    quickstart.set_up(world.home, fifty)
    assert world.changes() == ["init", *LOGIN]


def test_a_run_goes_on_where_the_one_before_was_stopped(world: World, fifty: FiftyCommand) -> None:
    for refused in ("image build micro", "router set-gateway lab-router", "router add-interface"):
        world.change(refuse=[refused, f"{refused} lab-router"])
        with pytest.raises(CommandFailed):
            quickstart.set_up(world.home, fifty)
    world.changes()
    world.change(refuse=[])
    quickstart.set_up(world.home, fifty)
    assert world.changes() == ["init", "router add-interface lab-router lab", *CREATE, *LOGIN]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("BUILD", ["vm resume hello"]),
        ("ERROR", ["vm delete hello", *CREATE]),
        ("NEEDS_ATTENTION", ["vm delete hello", *CREATE]),
    ],
)
def test_a_vm_that_an_interrupted_run_left(
    world: World, fifty: FiftyCommand, status: str, expected: list[str]
) -> None:
    quickstart.set_up(world.home, fifty)
    world.changes()
    world.change(vm={"hello": {"status": status}})
    quickstart.set_up(world.home, fifty)
    assert world.changes() == ["init", *expected, *LOGIN]


def test_uplink(world: World, fifty: FiftyCommand) -> None:
    quickstart.set_up(world.home, fifty, uplink=True)
    assert any(call.endswith("--outside uplink") for call in world.changes())
    quickstart.set_up(world.home, fifty, uplink=True)
    world.change(network={"external": {"outside": "closed"}})
    with pytest.raises(Conflict, match="does not lead to this host's uplink") as raised:
        quickstart.set_up(world.home, fifty, uplink=True)
    assert "--down" in raised.value.hint


def test_a_refusal_is_told_in_the_commands_own_words(world: World, fifty: FiftyCommand) -> None:
    world.change(refuse=["network create lab"])
    with pytest.raises(CommandFailed) as raised:
        quickstart.set_up(world.home, fifty)
    assert raised.value.message == "`fifty network create lab --cidr 192.168.50.0/24`: not now"
    assert raised.value.hint == "wait"


def test_down_removes_everything_in_an_order_that_works(world: World, fifty: FiftyCommand) -> None:
    quickstart.set_up(world.home, fifty)
    fifty.run("vm", "create", "another")
    world.changes()
    world.change(refuse=["vm delete another"])
    said: list[str] = []
    with pytest.raises(NeedsAttention) as raised:
        takedown.take_down(world.home, fifty, said.append)
    assert "`fifty vm delete another`: not now" in raised.value.details
    assert world.home.exists()
    assert "Deleted vm hello" in said
    assert not any("another" in line for line in said)

    world.changes()
    world.change(refuse=[])
    calls = world.home.parent / "calls.json"
    (world.home / "world.json").rename(calls)
    (world.home / "world.json").symlink_to(calls)
    takedown.take_down(world.home, fifty, said.append)
    assert not world.home.exists()
    done = json.loads(calls.read_text())
    assert [call for call in done["calls"] if " list" not in call] == [
        "init",
        "tenant enable default",
        "vm delete another",
        "image delete micro",
        "audit --fix",
    ]
    assert not (done["vm"] or done["router"] or done["network"] or done["image"])


def test_down_where_nothing_was_ever_set_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libvirt_daemons, "leave", lambda home: [])
    others = tmp_path / "others"
    others.mkdir()
    (others / "thesis.txt").write_text("years of work")
    fifty = FiftyCommand(others, tmp_path / "no-such-program")
    with pytest.raises(Conflict, match="not of Fifty Steps"):
        daemons.prepare_home(others)
    takedown.take_down(others, fifty, lambda line: None)
    assert (others / "thesis.txt").exists()
