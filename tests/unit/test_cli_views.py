"""What `list`, `show`, `steps`, `ssh --json` and `console` tell of a state store."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from blocks.changes import Change
from blocks.resources import Snapshot
from blocks.settings import settings
from blocks.state import StepState
from blocks.state.tables.base import now
from deployments.cli.app import run
from deployments.cli.vm_login import for_terminal
from tests.unit.cli_store import STEPS, Filled

HOSTILE = "\x1b]0;owned\x07 \u202e \x9b31m [red]x[/red]\r\nsecond"
VM_FIELDS = {
    "id",
    "name",
    "status",
    "task_state",
    "host",
    "flavor",
    "image",
    "addresses",
    "fault",
    "request_id",
    "generation",
    "flow_run_id",
    "clocks",
}


@pytest.fixture(name="filled")
def _filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Filled]:
    monkeypatch.setenv("FIFTY_HOME", str(tmp_path))
    monkeypatch.setenv("FIFTY_HOST", "here")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    settings.cache_clear()
    filled = Filled(tmp_path)
    yield filled
    filled.store.database.dispose()
    settings.cache_clear()


def _json(capsys: pytest.CaptureFixture[str], *words: str) -> Any:  # noqa: ANN401
    capsys.readouterr()
    assert run([*words, "--json"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    return json.loads(said.out)


def _text(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert run(words) == 0
    return capsys.readouterr().out


def test_a_vm_in_list_and_show(filled: Filled, capsys: pytest.CaptureFixture[str]) -> None:
    instance = filled.add_vm("hello")
    [port] = filled.store.ports.of_device(instance.id)
    [listed] = _json(capsys, "vm", "list")
    assert set(listed) >= VM_FIELDS
    [address] = listed["addresses"]
    assert {**address, "network_id": None} == {
        "network": "lab",
        "network_id": None,
        "address": "10.0.0.7",
        "mac": port.mac,
        "port_id": port.id,
        "tap": port.tap,
    }
    assert listed["clocks"] == {"running_s": 1.25, "booted_s": 3.5, "login_s": 6.75}
    assert (listed["flavor"], listed["image"], listed["status"]) == ("tiny", "micro", "ACTIVE")
    for name in ("hello", instance.id):
        shown = _json(capsys, "vm", "show", name)
        assert {key: shown[key] for key in listed} == listed
    assert shown["url"].endswith(f"/runs/flow-run/{instance.flow_run_id}")
    text = _text(capsys, "vm", "show", "hello")
    assert "10.0.0.7 on lab" in text
    assert "fifty vm ssh hello" in text


def test_a_vm_tells_how_many_snapshots_it_has(
    filled: Filled, capsys: pytest.CaptureFixture[str]
) -> None:
    instance = filled.add_vm("hello")
    assert _json(capsys, "vm", "show", "hello")["snapshots"] == 0
    assert "snapshots" not in _text(capsys, "vm", "show", "hello")
    for name in ("one", "two"):
        made = filled.store.snapshots.record(
            Snapshot(
                id=str(uuid.uuid4()),
                tenant_id=instance.tenant_id,
                instance_id=instance.id,
                name=name,
                kind="external",
                created_at=now(),
            )
        )
        filled.store.snapshots.make_available(made.id, made.id, current=True)
    assert _json(capsys, "vm", "show", "hello")["snapshots"] == 2
    assert re.search(r"^snapshots +2$", _text(capsys, "vm", "show", "hello"), re.MULTILINE)


def test_help_says_what_has_no_snapshots(capsys: pytest.CaptureFixture[str]) -> None:
    told = " ".join(_text(capsys, "vm", "snapshot", "create", "--help").split())
    assert "Its volumes are not a part of it" in told
    assert "a VM whose disk is encrypted can have none" in told


def test_empty_lists_say_what_to_do_next(
    filled: Filled, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "fifty vm create" in _text(capsys, "vm", "list")
    assert _json(capsys, "vm", "list") == []
    assert "fifty router create" in _text(capsys, "router", "list")


def test_a_name_of_two_tenants_is_the_caller_s(
    filled: Filled, capsys: pytest.CaptureFixture[str]
) -> None:
    other = filled.add_tenant("other", "member")
    mine = filled.add_vm("hello")
    theirs = filled.add_vm("hello", tenant=other, address="10.0.0.8")
    assert _json(capsys, "vm", "show", "hello")["id"] == mine.id
    assert _json(capsys, "vm", "show", "hello", "--credentials", "other")["id"] == theirs.id
    assert [vm["id"] for vm in _json(capsys, "vm", "list")] == [mine.id]
    both = _json(capsys, "vm", "list", "--all-tenants")
    assert {vm["id"]: vm["tenant"] for vm in both} == {mine.id: "default", theirs.id: "other"}
    assert "TENANT" in _text(capsys, "vm", "list", "--all-tenants")
    # An admin may name what is another tenant's by its id; nobody else may.
    assert _json(capsys, "vm", "show", theirs.id)["id"] == theirs.id
    assert run(["vm", "show", mine.id, "--credentials", "other"]) == 1
    assert run(["vm", "list", "--all-tenants", "--credentials", "other"]) == 1


def test_steps_of_a_build(filled: Filled, capsys: pytest.CaptureFixture[str]) -> None:
    build = filled.add_build("hello")
    journal = filled.store.journal
    change = Change(what="Made a link", command="ip link add x")
    journal.intend(build.id, 1, 1, "here")
    journal.close(build.id, 1, 1, StepState.DONE, [change])
    journal.intend(build.id, 1, 2, "here")
    journal.intend(build.id, 1, 2, "here")
    journal.close(build.id, 1, 2, StepState.FAILED, error={"error": "X", "message": "no luck"})
    journal.intend(build.id, 1, 3, "here")
    # There is no instance: a build that was refused or stopped early has its steps all the same.
    for name in ("hello", build.id):
        steps = _json(capsys, "vm", "steps", name)
        assert [step["number"] for step in steps] == [step.number for step in STEPS]
    one, two, three, four, *_rest = steps
    assert (one["state"], one["title"], one["stage"]) == ("done", "Do 1", "A")
    assert one["changes"] == [change.model_dump()]
    assert one["duration_s"] >= 0
    assert (two["state"], two["attempts"], two["error"]["message"]) == ("failed", 2, "no luck")
    assert (three["state"], three["finished_at"]) == ("running", None)
    assert (four["state"], four["attempts"], four["started_at"]) == ("pending", 0, None)
    text = _text(capsys, "vm", "steps", "hello", "--changes")
    assert "# ip link add x" in text
    assert "2 attempts" in text
    # Nobody holds its lease, so it has stopped, and that is said.
    assert "It stopped at step 3 (Do 3) while building" in text
    token = filled.store.leases.acquire(build.id, "create")
    assert "It stopped" not in _text(capsys, "vm", "steps", "hello")
    filled.store.leases.release(build.id, token)


def test_the_living_vm_comes_before_a_later_refused_build(
    filled: Filled, capsys: pytest.CaptureFixture[str]
) -> None:
    instance = filled.add_vm("hello")
    filled.store.journal.intend(instance.id, 1, 1, "here")
    filled.store.journal.close(instance.id, 1, 1, StepState.DONE)
    filled.add_build("hello")
    assert _json(capsys, "vm", "steps", "hello")[0]["state"] == "done"


def test_an_earlier_generation(filled: Filled, capsys: pytest.CaptureFixture[str]) -> None:
    build = filled.add_build("hello")
    filled.store.journal.intend(build.id, 1, 1, "here")
    filled.store.builds.update(build.id, generation=2)
    assert _json(capsys, "vm", "steps", "hello")[0]["state"] == "pending"
    assert _json(capsys, "vm", "steps", "hello", "--generation", "1")[0]["state"] == "running"


def test_what_others_wrote_does_not_reach_the_terminal(
    filled: Filled, capsys: pytest.CaptureFixture[str]
) -> None:
    fault = {"error": "GuestFault", "message": HOSTILE, "hint": HOSTILE, "details": [HOSTILE]}
    instance = filled.add_vm("hello", fault=fault)
    journal = filled.store.journal
    journal.intend(instance.id, 1, 1, "here")
    journal.close(
        instance.id, 1, 1, StepState.FAILED, [Change(what=HOSTILE, command=HOSTILE)], fault
    )
    filled.store.builds.update(instance.id, fault=fault, name=HOSTILE)
    for words in (
        ["vm", "show", "hello"],
        ["vm", "steps", "hello", "--changes"],
        ["vm", "show", "hello", "--json"],
        ["vm", "steps", "hello", "--json"],
    ):
        text = _text(capsys, *words)
        assert not {"\x1b", "\x07", "\u202e", "\x9b", "\r"} & set(text), words
    assert _json(capsys, "vm", "show", "hello")["fault"]["message"] == HOSTILE
    assert "[red]x[/red]" in _text(capsys, "vm", "show", "hello")


def test_networks_images_and_keys(filled: Filled, capsys: pytest.CaptureFixture[str]) -> None:
    filled.add_vm("hello")
    [network] = _json(capsys, "network", "list")
    assert network["subnets"][0]["cidr"] == "10.0.0.0/24"
    shown = _json(capsys, "network", "show", "lab")
    assert [port["addresses"] for port in shown["ports"]] == [["10.0.0.7"]]
    assert "10.0.0.7, compute" in _text(capsys, "network", "show", "lab")
    assert _json(capsys, "image", "show", "micro")["login_user"] == "root"
    assert "17.0 MiB" in _text(capsys, "image", "list")
    settings().keys.mkdir()
    made = _json(capsys, "key", "create", "mine")
    assert Path(made["private_path"]).stat().st_mode & 0o777 == 0o600
    assert _json(capsys, "key", "create", "mine") == made
    assert _json(capsys, "key", "list") == [made]


def test_logging_in(filled: Filled, capsys: pytest.CaptureFixture[str]) -> None:
    settings().keys.mkdir()
    key = _json(capsys, "key", "create", "mine")
    filled.add_vm("named", request={"name": "named", "key": "mine"})
    filled.add_vm("pasted", address="10.0.0.8", request={"key": f"{key['public_key']} me"})
    filled.add_vm("other", address="10.0.0.9", request={"key": "ssh-ed25519 AAAA me"})
    filled.add_vm("early", address=None, request={"key": "mine"})
    for name, address in (("named", "10.0.0.7"), ("pasted", "10.0.0.8")):
        command = _json(capsys, "vm", "ssh", name)["command"]
        assert command[0] == "nsenter"
        assert command[1] == f"--net=/run/netns/fifty-dhcp-{filled.network.id}"
        assert command[command.index("-i") + 1] == key["private_path"]
        assert command[-1] == f"root@{address}"
    assert run(["vm", "ssh", "other", "--json"]) == 1
    assert "--identity" in json.loads(capsys.readouterr().out)["hint"]
    words = ["vm", "ssh", "other", "--identity", "/k", "--json", "--", "ls", "-l", "--json"]
    assert run(words) == 0
    assert json.loads(capsys.readouterr().out)["command"][-4:] == [
        "root@10.0.0.9",
        "ls",
        "-l",
        "--json",
    ]
    assert run(["vm", "ssh", "early"]) == 1
    assert "has no address" in capsys.readouterr().err
    filled.store.instances.update(filled.store.instances.find("named").id, host="there")
    assert run(["vm", "ssh", "named"]) == 1
    assert "on the host there" in capsys.readouterr().err


def test_the_console(filled: Filled, capsys: pytest.CaptureFixture[str]) -> None:
    instance = filled.add_vm("hello")
    assert run(["vm", "console", "hello"]) == 1
    capsys.readouterr()
    log = settings().instances / instance.id / "console.log"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"one\r\ntw\xffo\n")
    assert _json(capsys, "vm", "console", "hello")["lines"] == ["one", "tw\ufffdo"]
    # Not a terminal: the bytes as they are, for whoever reads them on.
    capsys.readouterr()


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain\n", "plain\n"),
        ("\x1b[0;32m  OK  \x1b[0m\r\n", "  OK  \n"),
        ("\x1b[2J\x1b[H\x1bclogin: ", "login: "),
        ("a\tb", "a       b"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("bell\x07 back\x08", r"bell\x07 back\x08"),
    ],
)
def test_a_console_on_a_terminal(raw: str, shown: str) -> None:
    assert for_terminal(raw) == shown


def test_a_build_that_did_not_end_well_says_where_why_what_is_there_and_what_next(
    filled: Filled, capsys: pytest.CaptureFixture[str]
) -> None:
    vm = filled.add_vm("hello", fault={"error": "HostFault", "message": "no disk", "step": 3})
    store, journal = filled.store, filled.store.journal
    made = Change(what="Made a link", command="ip link add x")
    for step, state in ((1, StepState.DONE), (2, StepState.DONE), (3, StepState.FAILED)):
        journal.intend(vm.id, 1, step, "here")
        journal.close(vm.id, 1, step, state, [made] if step == 2 else [])

    store.builds.update(vm.id, state="kept", fault={"error": "X", "message": "no disk", "step": 3})
    build = _json(capsys, "vm", "show", "hello")["build"]
    assert (build["state"], build["step"], build["step_title"]) == ("kept", 3, "Do 3")
    assert [(item["step"], item["what"]) for item in build["made"]] == [(2, ["Made a link"])]
    assert build["next"] == {
        "resume": "fifty vm resume hello",
        "rollback": "fifty vm rollback hello",
    }
    text = _text(capsys, "vm", "show", "hello")
    for words in ("It stopped at step 3 (Do 3), and is kept", "no disk", "Made a link"):
        assert words in text

    store.builds.update(vm.id, state="building", fault=None)
    journal.intend(vm.id, 1, 4, "here")
    build = _json(capsys, "vm", "show", "hello")["build"]
    assert (build["state"], build["step"]) == ("stopped", 4)
    assert [item["step"] for item in build["made"]] == [2, 4]
    assert "not written down" in build["made"][1]["what"][0]
    token = store.leases.acquire(vm.id, "create")
    build = _json(capsys, "vm", "show", "hello")["build"]
    assert (build["state"], build["run"], build["made"], build["next"]) == (
        "running",
        "create",
        [],
        {},
    )
    store.leases.release(vm.id, token)

    for step in (4, 3, 1):
        journal.close(vm.id, 1, step, StepState.UNDONE)
    journal.close(vm.id, 1, 2, StepState.UNDO_FAILED, error={"error": "X", "message": "busy"})
    store.builds.update(vm.id, state="needs_attention")
    build = _json(capsys, "vm", "show", "hello")["build"]
    assert build["state"] == "needs_attention"
    assert [item["what"] for item in build["made"]] == [["Made a link", "its undo failed: busy"]]
    assert build["next"] == {"rollback": "fifty vm rollback hello"}

    for end in ("complete", "undone"):
        store.builds.update(vm.id, state=end)
        assert _json(capsys, "vm", "show", "hello")["build"] is None
