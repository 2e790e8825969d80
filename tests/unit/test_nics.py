"""The interfaces that a VM is asked for: networks, addresses, their order."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

import pytest
from pydantic import ValidationError

from blocks.resources import VmRequest
from tasks.draft import Draft

NETWORK_ID = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"


def form(*networks: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - a request's fields
    return {"name": "web", "image": "micro", "networks": list(networks), **more}


def nics(*networks: str, **more: Any) -> list[tuple[str, str | None]]:  # noqa: ANN401
    request = VmRequest.model_validate(form(*networks, **more))
    return [(nic.network, str(nic.address) if nic.address else None) for nic in request.nics]


def test_in_the_order_asked_for() -> None:
    assert nics("b", "a:10.0.0.9", f"{NETWORK_ID}:10.1.0.9", "b") == [
        ("b", None),
        ("a", "10.0.0.9"),
        (NETWORK_ID, "10.1.0.9"),
        ("b", None),
    ]


def test_the_firsts_address_by_itself() -> None:
    assert nics("a", "b", fixed_ip="10.0.0.9") == [("a", "10.0.0.9"), ("b", None)]
    assert nics("a", "b:10.1.0.9", fixed_ip="10.0.0.9")[1] == ("b", "10.1.0.9")


@pytest.mark.parametrize(
    ("networks", "more", "said"),
    [
        (["a:10.0.0.999"], {}, "'10.0.0.999' is not an IPv4 address"),
        (["a:2001:db8::1"], {}, "IPv6 is not supported"),
        (["a:"], {}, "NAME:ADDRESS"),
        (["a:b:c:d"], {}, "is not an IPv4 address"),
        ([":10.0.0.9"], {}, "NAME:ADDRESS"),
        (["a:10.0.0.9\n"], {}, "NAME:ADDRESS"),
        (["a:10.0.0.9"], {"fixed_ip": "10.0.0.8"}, "fixed_ip: is given beside 'a:10.0.0.9'"),
        (["a"], {"fixed_ip": "2001:db8::1"}, "fixed_ip: IPv6 is not supported"),
        ([], {}, "networks"),
    ],
)
def test_what_is_no_choice_is_told(networks: list[str], more: dict[str, Any], said: str) -> None:
    wanted = form(*networks, **more)
    with pytest.raises(ValidationError):
        VmRequest.model_validate(wanted)
    assert said in "\n".join(Draft(wanted).errors)


def test_a_draft_gives_the_networks_though_something_else_is_wrong() -> None:
    draft = Draft({**form("a:10.0.0.9", "b"), "fixed_ip": "10.0.0.999"})
    assert draft.valid("networks") == ("a:10.0.0.9", "b")
    assert draft.valid("fixed_ip") is None
    assert VmRequest.model_validate(form("a:10.0.0.9")).nics[0].address == IPv4Address("10.0.0.9")
