"""The routes that a router is given: which are wanted when, and which make no sense."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from blocks.errors import InvalidRequest
from blocks.fabric import router_routes
from blocks.resources import Route, Router
from tests.unit.test_fabric_connections import router


def with_routes(*routes: tuple[str, str]) -> Router:
    made = tuple(Route.model_validate({"destination": to, "nexthop": by}) for to, by in routes)
    return router().model_copy(update={"routes": made})


def test_what_leads_over_the_outside_waits_for_the_gateway() -> None:
    given = with_routes(("10.7.0.0/24", "10.6.0.9"), ("192.0.2.0/24", "198.51.100.7"))
    inside = {IPv4Network("10.7.0.0/24"): IPv4Address("10.6.0.9")}
    outside = {IPv4Network("192.0.2.0/24"): IPv4Address("198.51.100.7")}
    assert router_routes.wanted(given, connected=False) == inside
    assert router_routes.wanted(given, connected=True) == inside | outside


@pytest.mark.parametrize(
    ("routes", "says"),
    [
        ([("10.7.0.0/24", "10.9.0.9")], "no network of the router"),
        ([("10.7.0.0/24", "10.6.0.1")], "the router router itself"),
        ([("10.7.0.0/24", "198.51.100.10")], "the router router itself"),
        ([("10.7.0.0/24", "10.6.0.255")], "no host's address"),
        ([("0.0.0.0/0", "10.6.0.9")], "default route"),
        ([("10.7.0.0/24", "10.6.0.9"), ("10.7.0.0/24", "10.6.0.8")], "two routes"),
    ],
)
def test_a_route_that_makes_no_sense_is_refused(routes: list[tuple[str, str]], says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        router_routes.wanted(with_routes(*routes), connected=True)


def test_the_same_route_twice_is_one() -> None:
    given = with_routes(*[("10.7.0.0/24", "10.6.0.9")] * 2)
    assert len(router_routes.wanted(given, connected=False)) == 1
