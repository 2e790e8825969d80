"""Bad requests and bad command lines: refused in one answer, and nothing has changed."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from prefect.client.schemas.objects import State

from blocks.credentials.block import FiftyCredentials
from flows.create_network import create_network
from flows.create_vm import create_vm
from tests.cloud import Cloud
from tests.forked import forked
from tests.inventory import differences

pytestmark = pytest.mark.e2e

GOOD = {"name": "bad", "image": "micro", "flavor": "tiny", "networks": ["lab"]}


def _content(size: int) -> str:
    return base64.b64encode(b"x" * size).decode()


#: What is changed of the good request, and what the answer must say, every one of it.
VMS: Sequence[tuple[str, Mapping[str, Any], Sequence[str]]] = (
    ("empty name", {"name": ""}, ["name:"]),
    ("name too long", {"name": "a" * 64}, ["name:"]),
    ("name in capitals", {"name": "Hello"}, ["name:"]),
    ("name with underscore", {"name": "a_b"}, ["name:"]),
    ("name that ends in a hyphen", {"name": "a-"}, ["name:"]),
    ("name with markup", {"name": "<b>&amp;"}, ["name:"]),
    ("name with newline", {"name": "a\nb"}, ["name:"]),
    ("name that ends in a newline", {"name": "a\n"}, ["name:"]),
    ("name with NUL", {"name": "a\x00b"}, ["name:"]),
    ("name that climbs", {"name": "../../etc/passwd"}, ["name:"]),
    ("name that is a number", {"name": 5}, ["name:"]),
    ("unknown flavor", {"flavor": "huge"}, ["flavor:", "huge"]),
    ("unknown image", {"image": "nothing"}, ["image:", "nothing"]),
    ("unknown network", {"networks": ["nowhere"]}, ["networks:", "nowhere"]),
    ("no network", {"networks": []}, ["networks:"]),
    ("external network", {"networks": ["external"]}, ["networks:", "an external network"]),
    ("unknown key", {"key": "lost"}, ["key:", "lost"]),
    ("key of a strange type", {"key": "ssh-dss AAAA"}, ["key:", "ssh-dss"]),
    ("key that is not base64", {"key": "ssh-ed25519 !!!!"}, ["key:"]),
    ("two keys in one", {"key": "ssh-ed25519 AAAA\nssh-ed25519 BBBB"}, ["key:"]),
    ("unknown group", {"security_groups": ["web"]}, ["security_groups:", "web"]),
    ("image too big for the flavor", {"image": "giant"}, ["image:", "3.00 GiB"]),
    ("address outside the subnet", {"fixed_ip": "192.0.2.1"}, ["192.0.2.1"]),
    ("address of the gateway", {"fixed_ip": "10.77.1.1"}, ["10.77.1.1", "gateway"]),
    ("address that is taken", {"fixed_ip": "10.77.1.2"}, ["10.77.1.2", "taken"]),
    ("network address", {"fixed_ip": "10.77.1.0"}, ["10.77.1.0"]),
    ("broadcast address", {"fixed_ip": "10.77.1.255"}, ["10.77.1.255"]),
    ("address that is none", {"fixed_ip": "10.77.1.300"}, ["fixed_ip:"]),
    ("user data over 64 KiB", {"user_data": "#!" + "x" * 65536}, ["user_data:", "65536"]),
    ("broken YAML", {"user_data": "#cloud-config\na: [b"}, ["user_data:", "YAML"]),
    ("YAML that is a list", {"user_data": "#cloud-config\n- a"}, ["user_data:", "mapping"]),
    (
        "relative path",
        {"inject": [{"path": "etc/x", "content_base64": ""}]},
        ["inject.0.path:", "absolute"],
    ),
    (
        "path that climbs",
        {"inject": [{"path": "/etc/../x", "content_base64": ""}]},
        ["inject.0.path:"],
    ),
    (
        "path with a newline",
        {"inject": [{"path": "/etc/a\nb", "content_base64": ""}]},
        ["inject.0.path:"],
    ),
    (
        "content that is not base64",
        {"inject": [{"path": "/a", "content_base64": "%%%"}]},
        ["inject.0.content_base64:"],
    ),
    (
        "injected file over the limit",
        {"inject": [{"path": "/a", "content_base64": _content(256 * 1024 + 1)}]},
        ["inject.0.content_base64:", "limit"],
    ),
    (
        "injected files over the limit together",
        {"inject": [{"path": f"/{n}", "content_base64": _content(140 * 1024)} for n in ("a", "b")]},
        ["inject:", "limit"],
    ),
    ("volume of nothing", {"volumes": [0]}, ["volumes.0:"]),
    ("volume of less", {"volumes": [-1]}, ["volumes.0:"]),
    ("unknown field", {"colour": "red"}, ["colour:"]),
    ("unknown nested field", {"inject": [{"path": "/a", "content_base64": "", "o": 1}]}, ["o:"]),
    ("quota exceeded", {"volumes": [16384]}, ["gigabytes"]),
    ("floating IP without a router", {"floating": True, "networks": ["twin"]}, ["no router leads"]),
    ("unknown policy", {"on_failure": "shrug"}, ["on_failure:"]),
    ("host that is not there", {"host": "elsewhere"}, ["elsewhere"]),
    ("zone that is not there", {"zone": "mars"}, ["mars"]),
    ("beside a VM that is not there", {"same_host": ["ghost"]}, ["same_host", "ghost"]),
    ("no credentials block", {"credentials": "nobody"}, ["nobody"]),
    ("wrong token", {"credentials": "forged"}, ["forged", "token"]),
    (
        "everything at once",
        {
            "name": "<b>",
            "image": "nothing",
            "flavor": "huge",
            "networks": ["nowhere"],
            "volumes": [0],
            "key": "lost",
            "security_groups": ["web"],
            "colour": "red",
        },
        ["name:", "volumes.0:", "colour:", "nothing", "huge", "nowhere", "lost", "web"],
    ),
)

GOOD_NETWORK = {"name": "badnet", "cidr": "10.99.0.0/24"}
NETWORKS: Sequence[tuple[str, Mapping[str, Any], Sequence[str]]] = (
    ("/31", {"cidr": "10.99.0.0/31"}, ["cidr:", "/31"]),
    ("host bits set", {"cidr": "10.99.0.7/24"}, ["cidr:", "host bits"]),
    ("IPv4 written wrongly", {"cidr": "10.99.0/24"}, ["cidr:"]),
    ("leading zero", {"cidr": "010.99.0.0/24"}, ["cidr:"]),
    ("no prefix", {"cidr": "10.99.0.0"}, ["cidr:"]),
    ("IPv6", {"cidr": "fd00::/64"}, ["cidr:"]),
    ("multicast", {"cidr": "224.0.0.0/24"}, ["cidr:"]),
    (
        "overlap on one router",
        {"cidr": "10.77.1.128/25", "router": "gate"},
        ["cidr:", "overlaps"],
    ),
    ("name that is taken", {"name": "lab"}, ["name:", "lab"]),
    ("gateway outside", {"gateway": "10.98.0.1"}, ["gateway:"]),
    ("pool reversed", {"pool": "10.99.0.20-10.99.0.10"}, ["pool:", "reversed"]),
    ("pool outside", {"pool": "10.99.0.10-10.99.1.10"}, ["pool:"]),
    ("segment of a local network", {"type": "local", "segment": 7}, ["segment:"]),
    ("segment out of range", {"segment": 2**24}, ["segment:"]),
    ("unknown type", {"type": "token-ring"}, ["type:"]),
    (
        "external network that is none",
        {"router": "gate", "external_network": "lab"},
        ["external_network:", "not an external"],
    ),
)


@pytest.fixture(scope="module")
def tempting(site_cloud: Cloud) -> Iterator[Cloud]:
    """The site with an image that is too big, and a credentials block with a forged token."""
    store = site_cloud.world.store
    [micro] = store.images.list(None)
    giant = micro.model_copy(
        update={
            "id": "00000000-0000-4000-8000-000000000000",
            "name": "giant",
            "virtual_size_bytes": 3 * 1024**3,
        }
    )
    store.images.put(giant)
    FiftyCredentials(token="forged").save("forged", overwrite=True)
    with forked(site_cloud) as quick:
        yield quick
    store.images.delete(giant.id)


def _refused(
    cloud: Cloud, state: State[Any], said: Sequence[str], before: dict[str, list[str]]
) -> None:
    assert state.is_failed()
    assert state.name in ("Refused", "RolledBack")
    message = state.message or ""
    for words in said:
        assert words in message
    assert "Traceback" not in message
    assert differences(before, cloud.inventory()) == []


@pytest.mark.parametrize(("change", "said"), [case[1:] for case in VMS], ids=[c[0] for c in VMS])
def test_a_bad_vm_is_refused(
    tempting: Cloud, change: Mapping[str, Any], said: Sequence[str]
) -> None:
    before = tempting.inventory()
    state = create_vm({**GOOD, **change}, return_state=True)
    _refused(tempting, state, said, before)
    if any(vm.name == GOOD["name"] for vm in tempting.world.store.instances.list()):
        # Refused by the scheduler: it was recorded, and is ERROR with nothing left.
        tempting.fifty("vm", "delete", str(GOOD["name"]))


@pytest.mark.parametrize(
    ("change", "said"), [case[1:] for case in NETWORKS], ids=[c[0] for c in NETWORKS]
)
def test_a_bad_network_is_refused(
    tempting: Cloud, change: Mapping[str, Any], said: Sequence[str]
) -> None:
    before = tempting.inventory()
    state = create_network({**GOOD_NETWORK, **change}, return_state=True)
    _refused(tempting, state, said, before)


CREATE = ("vm", "create", "bad", "--image", "micro", "--network", "lab")
COMMANDS: Sequence[tuple[int, Sequence[str]]] = (
    (2, ()),
    (2, ("vm",)),
    (2, ("vm", "create")),
    (2, ("vm", "create", "bad")),
    (2, ("frobnicate",)),
    (2, (*CREATE, "--colour", "red")),
    (1, (*CREATE, "--volume", "big")),
    (2, (*CREATE, "--on-failure", "shrug")),
    (1, (*CREATE, "--volume", "0")),
    (1, (*CREATE, "--volume=-1")),
    (1, (*CREATE, "--user-data", "/nonexistent")),
    (1, (*CREATE, "--inject", "no-colon")),
    (1, (*CREATE, "--inject", "/nonexistent:/etc/x")),
    (1, (*CREATE, "--key", "/nonexistent")),
    (1, (*CREATE, "--fixed-ip", "not-an-address")),
    (1, ("vm", "show", "ghost")),
    (1, ("vm", "delete", "ghost")),
    (1, ("vm", "resume", "ghost")),
    (1, ("vm", "rollback", "ghost")),
    (1, ("vm", "ssh", "ghost")),
    (1, ("vm", "show", "\x1b[31m../<b>")),
    (1, ("network", "show", "ghost")),
    (1, ("network", "delete", "ghost")),
    (1, ("network", "create", "n", "--cidr", "10.0.0.1/24")),
    (1, ("image", "build", "no-such-recipe")),
    (1, ("image", "delete", "ghost")),
    (1, ("router", "delete", "ghost")),
)


@pytest.mark.parametrize(
    ("code", "words"), COMMANDS, ids=[" ".join(words) or "nothing" for _, words in COMMANDS]
)
def test_a_bad_command_line_is_refused(tempting: Cloud, code: int, words: Sequence[str]) -> None:
    before = tempting.inventory()
    done = tempting.run(*words)
    assert done.returncode in ((code, 0) if words in ((), ("vm",)) else (code,)), done
    assert "Traceback" not in done.stdout + done.stderr
    assert "\x1b[31m" not in done.stderr
    assert differences(before, tempting.inventory()) == []


def test_a_refusal_as_json_is_one_document(tempting: Cloud) -> None:
    done = tempting.run(*CREATE[:3], "--image", "nothing", "--network", "nowhere", "--json")
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert document["error"] == "NotFound", document
    assert len(document["details"]) == 2
    assert document["hint"]
