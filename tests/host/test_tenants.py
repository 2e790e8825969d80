"""One tenant can neither name, see nor use what another owns: every command and every flow."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from prefect import Flow
from prefect.logging.handlers import APILogHandler

import flows
from blocks.settings import Settings, settings
from deployments import daemons
from deployments.cli.app import run
from deployments.cli.command_tree import TREE
from deployments.setup import initialize
from tests import sessions
from tests.host.tenancy import Tenancy
from tests.prefect_api import api

pytestmark = [pytest.mark.host, pytest.mark.slow]

#: Beside `{vm}` and the like, which stand for a thing of another tenant, by name or by id.
_CREATE = {"name": "mine", "image": "{image}", "networks": ["{network}"], "key": "{key}"}

#: Commands that must refuse what is another tenant's.
REFUSING: Mapping[str, tuple[str, ...]] = {
    "vm create": ("mine --image {image} --network {network} --key {key} --security-group {group}",),
    "vm show": ("{vm}",),
    "vm steps": ("{vm}",),
    "vm ssh": ("{vm}",),
    "vm console": ("{vm}",),
    "vm delete": ("{vm}",),
    "vm start": ("{vm}",),
    "vm resume": ("{vm}",),
    "vm rollback": ("{vm}",),
    "vm attach-interface": ("{vm} {network}",),
    "vm detach-interface": ("{vm} 10.91.0.2",),
    "vm set-interface": ("{vm} 10.91.0.2 --security-group {group}",),
    "vm snapshot create": ("{vm} mine",),
    "vm snapshot list": ("{vm}",),
    "vm snapshot revert": ("{vm} theirs",),
    "vm snapshot delete": ("{vm} theirs",),
    "network create": ("mine --cidr 10.92.0.0/24 --router mine --external-network {network}",),
    "network show": ("{network}",),
    "network delete": ("{network}",),
    "router show": ("{router}",),
    "router add-interface": ("{router} {network}", "own-router {network}"),
    "router set-gateway": ("{router} {network}", "own-router {network}"),
    "router clear-gateway": ("{router}",),
    "router remove-interface": ("{router} {network}", "own-router {network}"),
    "router set-routes": ("{router} --route 10.7.0.0/16=10.91.0.9",),
    "router delete": ("{router}",),
    "floating-ip create": ("{network}",),
    "floating-ip attach": ("{floating} {vm}",),
    "floating-ip detach": ("{floating}",),
    "floating-ip delete": ("{floating}",),
    "security-group show": ("{group}",),
    "security-group add-rule": ("{group} --protocol tcp", "own-group --remote-group {group}"),
    "security-group remove-rule": ("{group} 5a5a5a5a-0000-4000-8000-000000000001",),
    "security-group delete": ("{group}",),
    "vm attach-volume": ("{vm} --size 1",),
    "vm detach-volume": ("{vm} 5a5a5a5a-0000-4000-8000-000000000001",),
    "image show": ("{image}",),
    "image delete": ("{image}",),
    "image check": ("{image}",),
    "image edit": ("{image} mine --remove /etc/motd",),
    "image capture": ("{vm} mine",),
    "image certify": ("{image}",),
    "image set": ("{image} --os linux",),
    "image deactivate": ("{image} --why mine",),
    "image activate": ("{image}",),
    "image share": ("{image} other",),
    "image unshare": ("{image} other",),
    "image save": ("{image} /nowhere/saved",),
}
#: Commands that list: what is another tenant's is not in the list.
LISTING = (
    *("vm list", "network list", "router list", "image list", "key list"),
    *("floating-ip list", "security-group list"),
)
#: Commands that give a name: the same name as another tenant's is a thing of one's own.
NAMING = (
    *("router create", "key create", "security-group create"),
    *("image build", "image import", "image install"),
)
#: Commands about what is every tenant's, for admins.
FOR_ADMINS = {
    "flavor create": "mine --vcpus 1 --ram 64 --disk 1",
    "flavor delete": "tiny",
}
#: Commands about the whole site, for who is root here.
FOR_ROOT = (
    *("init", "audit", "reconcile", "serve", "env", "stats"),
    *("tenant create", "tenant list", "tenant show", "tenant disable", "tenant enable"),
    *("tenant token", "tenant revoke", "tenant quota", "tenant certificates"),
)
#: Commands that tell everybody the same.
FOR_ALL = ("steps", "image recipes", "flavor list", "flavor show")

#: Flows that must refuse what is another tenant's, with a request for each way to name it.
REFUSING_FLOWS: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "create-vm": (
        {**_CREATE, "security_groups": ["{group}"]},
        {**_CREATE, "same_host": ["{vm}"], "different_host": ["{vm}"]},
    ),
    "delete-vm": ({"name": "{vm}"},),
    "start-vm": ({"name": "{vm}"},),
    "resume-vm": ({"name": "{vm}"},),
    "rollback-vm": ({"name": "{vm}"},),
    "run-in-vm": ({**_CREATE, "command": "true"},),
    "create-snapshot": ({"vm": "{vm}", "name": "mine"},),
    "revert-snapshot": ({"vm": "{vm}", "name": "theirs"},),
    "delete-snapshot": ({"vm": "{vm}", "name": "theirs"},),
    "create-network": (
        {
            "name": "mine",
            "cidr": "10.92.0.0/24",
            "router": "mine",
            "external_network": "{network}",
        },
    ),
    "delete-network": ({"name": "{network}"},),
    "change-router": (
        # The other actions are among the commands, which run the same flow.
        {"action": "add-interface", "name": "own-router", "network": "{network}"},
        {"action": "delete", "name": "{router}"},
    ),
    "change-floating-ip": (
        {"action": "attach", "name": "{floating}", "vm": "{vm}"},
        {"action": "create", "network": "{network}"},
    ),
    "change-security-group": (
        {"action": "add-rule", "name": "own-group", "remote_group": "{group}"},
        {"action": "delete", "name": "{group}"},
    ),
    "change-port": (
        {"action": "attach", "name": "{vm}", "network": "{network}"},
        {"action": "detach", "name": "{vm}", "port": "10.91.0.2"},
    ),
    "change-volume": (
        {"action": "attach", "name": "{vm}", "size_gib": 1},
        {"action": "detach", "name": "{vm}", "volume": "vdb"},
    ),
    "delete-image": ({"name": "{image}"},),
    "check-image": ({"name": "{image}"},),
    "edit-image": ({"image": "{image}", "name": "mine", "remove": ["/etc/motd"]},),
    "capture-image": ({"vm": "{vm}", "name": "mine"},),
    "certify-image": ({"name": "{image}"},),
    "change-image": (
        {"action": "set", "name": "{image}", "os": "linux"},
        {"action": "share", "name": "{image}", "tenant": "other"},
        {"action": "deactivate", "name": "{image}", "why": "mine"},
    ),
    "refresh-images": ({"names": ["{image}"]},),
}
#: Flows that name nothing of a tenant's, or that only an admin may run.
OTHER_FLOWS: Mapping[str, Mapping[str, Any]] = {
    "build-image": {"recipe": "micro"},
    "import-image": {"name": "mine", "source": "http://192.0.2.1/image"},
    "install-image": {"name": "mine", "medium": "/nowhere/installer.iso"},
    "save-image": {"name": "{image}", "file": "/nowhere/saved"},
}
#: Flows that look after the site, whoever's things are on it; they take no credentials.
SITE_FLOWS = ("audit", "clean-cache", "finish-build", "reconcile", "report-stats")

_SAID = ("message", "hint", "details", "error")


@pytest.fixture(name="tenancy", scope="module")
def _tenancy(session_directory: Path, prefect_server: str) -> Iterator[Tenancy]:
    home = session_directory / "tenants"
    daemons.prepare_home(home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIFTY_HOME", str(home))
        settings.cache_clear()
        here = Settings(home=home)
        site = initialize(here, prefect_server)
        sessions.note_site(session_directory, site.site)
        tenancy = Tenancy(here)
        for kind in ("router", "security-group"):
            own = f"own-{kind.rpartition('-')[2]}"
            assert run([kind, "create", own, "--credentials", "other"]) == 0
        yield tenancy
        # While the server is there: at the process's end it is not.
        APILogHandler().flush()
    settings.cache_clear()


def _all_flows() -> dict[str, Flow[Any, Any]]:
    found = {}
    for module in pkgutil.iter_modules(flows.__path__):
        flow = getattr(importlib.import_module(f"flows.{module.name}"), module.name, None)
        if isinstance(flow, Flow):
            found[flow.name] = flow
    return found


def _all_commands() -> set[str]:
    return {f"{group} {word}".strip() for group, words in TREE.items() for word in words}


def _filled(template: Any, tenancy: Tenancy, which: int) -> Any:  # noqa: ANN401
    """A template with a foreign id (0), a foreign name (1), or what nobody has (2)."""
    kinds = ("vm", "network", "router", "image", "key", "group", "floating")
    names = {kind: (*tenancy.names(kind), f"no-such-{kind}")[which] for kind in kinds}
    if isinstance(template, str):
        return template.format(**names)
    if isinstance(template, Mapping):
        return {key: _filled(value, tenancy, which) for key, value in template.items()}
    if isinstance(template, list | tuple):
        return [_filled(value, tenancy, which) for value in template]
    return template


def _neutral(said: str, tenancy: Tenancy) -> str:
    """What was said, with the names that were asked for left out."""
    kinds = ("vm", "network", "router", "image", "key", "group", "floating")
    words = {word for kind in kinds for word in (*tenancy.names(kind), f"no-such-{kind}")}
    for word in sorted(words, key=len, reverse=True):
        said = said.replace(word, "X")
    return said


def _run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    capsys.readouterr()
    options = words.index("--") if "--" in words else len(words)
    code = run([*words[:options], "--json", *words[options:]])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return code, json.loads(said.out)


def _ends(flow: Flow[Any, Any], request: Mapping[str, Any]) -> tuple[str | None, str]:
    """The name and the message of the state in which a flow with this request ends."""
    state: Any = flow(dict(request), return_state=True)
    return state.name, state.message or ""


def test_every_command_and_every_flow_has_its_case() -> None:
    groups = (REFUSING, LISTING, NAMING, FOR_ADMINS, FOR_ROOT, FOR_ALL)
    cases = [command for group in groups for command in group]
    assert len(cases) == len(set(cases))
    assert _all_commands() <= set(cases)
    flows_with_case = {*REFUSING_FLOWS, *OTHER_FLOWS, *SITE_FLOWS}
    assert set(_all_flows()) <= flows_with_case


@pytest.mark.parametrize("command", sorted(REFUSING))
def test_a_command_refuses_what_is_anothers(
    command: str, tenancy: Tenancy, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tenancy.everything()
    for template in REFUSING[command]:
        told = []
        for which in (2, 1, 0):
            words = (*command.split(), *_filled(template, tenancy, which).split())
            code, document = _run(capsys, *words, "--credentials", "other")
            assert code == 1, document
            assert document["error"] in ("NotFound", "InvalidRequest")
            told.append(_neutral(str({field: document[field] for field in _SAID}), tenancy))
        # As if it were not there: not even the words differ.
        assert told[0] == told[1] == told[2]
    assert tenancy.everything() == before


@pytest.mark.parametrize("command", LISTING)
def test_a_list_shows_no_others(
    command: str, tenancy: Tenancy, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = command.split(maxsplit=1)[0]
    for block, options, seen in (
        ("owner", (), True),
        ("other", (), False),
        ("other-admin", (), False),
        ("other-admin", ("--all-tenants",), True),
    ):
        code, listed = _run(capsys, *command.split(), *options, "--credentials", block)
        assert code == 0
        assert (tenancy.names(kind)[1] in [item["name"] for item in listed]) is seen
        word = tenancy.names(kind)[1] if kind == "floating-ip" else "theirs"
        assert (word in str(listed)) is seen
        if options:
            assert {"owner"} <= {item["tenant"] for item in listed}
    code, refusal = _run(capsys, *command.split(), "--all-tenants", "--credentials", "owner")
    assert (code, refusal["error"]) == (1, "Denied")


def test_a_name_that_another_has_is_free(
    tenancy: Tenancy, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tenancy.store
    # The private halves are files: an own one is made, not the one given that is there.
    _code, first = _run(capsys, "key", "create", "same", "--credentials", "owner")
    _code, second = _run(capsys, "key", "create", "same", "--credentials", "other")
    assert first["private_path"] != second["private_path"]
    assert first["public_key"] != second["public_key"]
    assert store.keys.get(tenancy.owner.id, "same")[0] == first["public_key"]
    code, router = _run(capsys, "router", "create", "theirs-router", "--credentials", "other")
    assert code == 0
    assert router["id"] != tenancy.router.id
    assert _run(capsys, "router", "delete", "theirs-router", "--credentials", "other")[0] == 0
    assert store.routers.get(tenancy.router.id).name == "theirs-router"


def test_the_owner_and_an_admin_see_it(
    tenancy: Tenancy, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in ("vm show", "vm steps", "vm console", "network show", "router show", "image show"):
        kind = words.split()[0]
        the_id, name = tenancy.names(kind)
        assert _run(capsys, *words.split(), name, "--credentials", "owner")[0] == 0
        code, _said = _run(capsys, *words.split(), the_id, "--credentials", "owner-reader")
        # What a guest says may be secret: Nova's readers do not read it either.
        assert code == (1 if words == "vm console" else 0)
        # An admin names what is another's by its id; by name it is the admin's own.
        assert _run(capsys, *words.split(), the_id, "--credentials", "other-admin")[0] == 0
        assert _run(capsys, *words.split(), name, "--credentials", "other-admin")[0] == 1


@pytest.mark.parametrize("command", FOR_ROOT)
def test_what_is_the_sites_is_for_root(
    command: str,
    tenancy: Tenancy,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert command in _all_commands()
    arguments = {
        "tenant create": ("x",),
        "tenant show": ("owner",),
        "tenant disable": ("owner",),
        "tenant enable": ("owner",),
        "tenant token": ("owner", "--role", "admin"),
        "tenant revoke": ("x",),
        "tenant quota": ("owner",),
        "tenant certificates": ("owner", "required"),
    }
    before = tenancy.everything()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "access", lambda *_args, **_more: False)
    code, refusal = _run(capsys, *command.split(), *arguments.get(command, ()))
    assert (code, refusal["error"]) == (1, "Denied")
    assert tenancy.everything() == before


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(REFUSING_FLOWS))
def test_a_flow_refuses_what_is_anothers(name: str, tenancy: Tenancy) -> None:
    flow = _all_flows()[name]
    before = tenancy.everything()
    for template in REFUSING_FLOWS[name]:
        told = set()
        for which in (2, 1, 0):
            request = {**_filled(template, tenancy, which), "credentials": "other"}
            state, message = _ends(flow, request)
            assert state in ("Refused", "NoVm"), message
            assert message.startswith(("NotFound", "InvalidRequest"))
            told.add(_neutral(message, tenancy))
        assert len(told) == 1, told
    assert tenancy.everything() == before


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*REFUSING_FLOWS, *OTHER_FLOWS}))
def test_who_may_not_is_denied(name: str, tenancy: Tenancy) -> None:
    """A reader, a tenant that is disabled, a token that was revoked: in every flow."""
    flow = _all_flows()[name]
    template = OTHER_FLOWS.get(name) or REFUSING_FLOWS[name][0]
    request = _filled(template, tenancy, 1)
    tenants = tenancy.store.tenants
    before = tenancy.everything()
    state, message = _ends(flow, {**request, "credentials": "owner-reader"})
    assert (state, message.split(":")[0]) == ("Refused", "Denied")
    assert "a reader may not" in message
    tenants.set_enabled(tenancy.owner.id, enabled=False)
    try:
        state, message = _ends(flow, {**request, "credentials": "owner"})
    finally:
        tenants.set_enabled(tenancy.owner.id, enabled=True)
    assert (state, message.split(":")[0]) == ("Refused", "Denied")
    assert "'owner' is disabled" in message
    state, message = _ends(flow, {**request, "credentials": "nobody"})
    assert (state, message.split(":")[0]) == ("Refused", "Denied")
    assert tenancy.everything() == before


def test_a_reader_changes_nothing_and_does_not_log_in(
    tenancy: Tenancy, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tenancy.everything()
    for command in ("vm ssh theirs-vm", "vm console theirs-vm", "key create another"):
        code, refusal = _run(capsys, *command.split(), "--credentials", "owner-reader")
        assert (code, refusal["error"]) == (1, "Denied"), command
        assert "a reader may not" in refusal["message"]
    assert tenancy.everything() == before


def test_what_is_the_hosts_is_for_admins(
    tenancy: Tenancy, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tenancy.everything()
    for option, word in (
        (("--segment", "77"), "segment id"),
        (("--external",), "external network"),
        (("--type", "flat", "--physical-bridge", "br0"), "bridge of the host"),
    ):
        words = ("network", "create", "mine", "--cidr", "10.92.0.0/24", *option)
        code, refusal = _run(capsys, *words, "--credentials", "other")
        assert code == 1
        assert "only an admin may" in refusal["message"]
        assert word in refusal["message"]
    words = ("vm", "create", "mine", "--image", "i", "--network", "n", "--host", "here")
    code, refusal = _run(capsys, *words, "--credentials", "other")
    assert (code, refusal["message"]) == (1, "a member may not force a host")
    for command, arguments in FOR_ADMINS.items():
        words = (*command.split(), *arguments.split())
        code, refusal = _run(capsys, *words, "--credentials", "other")
        assert (code, refusal["error"]) == (1, "Denied"), refusal
        assert "a member may not" in refusal["message"]
    assert tenancy.everything() == before


def test_a_disabled_tenant_sees_nothing(
    tenancy: Tenancy, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(capsys, "tenant", "disable", "owner")[1]["enabled"] is False
    try:
        for command in (*LISTING, "vm show theirs-vm", "vm delete theirs-vm", "key create x"):
            code, refusal = _run(capsys, *command.split(), "--credentials", "owner")
            assert (code, refusal["error"]) == (1, "Denied"), command
            assert "is disabled" in refusal["message"]
    finally:
        assert _run(capsys, "tenant", "enable", "owner")[1]["enabled"] is True
    assert _run(capsys, "vm", "list", "--credentials", "owner")[0] == 0


def test_a_token_is_shown_once_and_can_be_revoked(
    tenancy: Tenancy, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("tenant", "token", "other", "--role", "reader", "--save", "passing")
    _code, issued = _run(capsys, *words)
    assert len(issued["token"]) >= 40
    _code, shown = _run(capsys, "tenant", "show", "other")
    [known] = [token for token in shown["tokens"] if token["id"] == issued["id"]]
    assert (known["role"], known["credentials"]) == ("reader", "passing")
    assert issued["token"] not in str(shown)
    for file in tenancy.home.glob("state.db*"):
        assert issued["token"].encode() not in file.read_bytes()
    # A second one for the same block: the block holds it, and the first stays valid.
    _code, second = _run(capsys, *words)
    assert tenancy.store.tenants.caller(issued["token"]) is not None
    assert {
        token.id: token.credentials for token in tenancy.store.tenants.tokens(tenancy.other.id)
    }[second["id"]] == "passing"
    assert _run(capsys, "vm", "list", "--credentials", "passing") == (0, [])
    _run(capsys, "tenant", "revoke", second["id"])
    code, refusal = _run(capsys, "vm", "list", "--credentials", "passing")
    assert (code, refusal["error"]) == (1, "Denied")
    assert "not known" in refusal["message"]
    assert _run(capsys, "tenant", "revoke", second["id"])[1]["error"] == "NotFound"
    # Another tenant's block is not taken over.
    words = ("tenant", "token", "other", "--role", "reader", "--save", "owner")
    before = tenancy.store.tenants.tokens(tenancy.other.id)
    assert _run(capsys, *words)[1]["error"] == "Conflict"
    assert tenancy.store.tenants.tokens(tenancy.other.id) == before
    words = ("tenant", "token", "other", "--role", "reader", "--save", "../x")
    assert _run(capsys, *words)[1]["error"] == "InvalidRequest"


@pytest.mark.parametrize("name", ["", "-x", "a/b", "a b", "../x", "x" * 64, "naïve", "a\nb"])
def test_a_tenants_name_has_a_form(
    name: str, tenancy: Tenancy, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tenancy.everything()
    code, refusal = _run(capsys, "tenant", "create", "--", name)
    assert code in (1, 2)
    assert refusal["error"] in ("InvalidRequest", "WrongUsage")
    assert tenancy.everything() == before


def test_a_new_tenant_has_what_the_first_one_has(
    tenancy: Tenancy, capsys: pytest.CaptureFixture[str]
) -> None:
    code, made = _run(capsys, "tenant", "create", "Third.One")
    assert (code, made["new"], made["enabled"], made["tokens"]) == (0, True, True, [])
    assert _run(capsys, "tenant", "create", "Third.One")[1]["new"] is False
    store = tenancy.store
    assert [group.name for group in store.groups.list(made["id"])] == ["default"]
    limit = api("GET", "/v2/concurrency_limits/fifty-requests-Third.One").json()
    assert (limit["limit"], limit["slot_decay_per_second"]) == (120, 2.0)
    _code, quota = _run(
        capsys, "tenant", "quota", "Third.One", "--set", "instances=5", "--set", "cores=0"
    )
    assert {item["resource"]: item["limit"] for item in quota}["instances"] == 5
    assert store.quota.standing(made["id"])["cores"] == (0, 0)
    names = [tenant["name"] for tenant in _run(capsys, "tenant", "list")[1]]
    assert names == ["Third.One", "default", "other", "owner"]


def test_two_tenants_can_use_the_same_request_id(tenancy: Tenancy) -> None:
    flow = _all_flows()["create-vm"]
    request = {"name": "twice", "image": "none", "networks": ["none"], "request_id": "same"}
    builds = tenancy.store.builds
    found = []
    for block in ("owner", "other"):
        assert _ends(flow, {**request, "credentials": block})[0] == "Refused"
        found.append(builds.of_request("vm", block, "same"))
    assert [build.tenant_id for build in found if build] == [tenancy.owner.id, tenancy.other.id]
