"""Floating IPs that move from router to router: never on two of them, whoever is killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from blocks.resources import FloatingIpRequest, Router
from tasks.floating_ip_actions import ACTIONS
from tasks.floating_ip_routers import let_go
from tests.unit.test_network_bad_input import Site

if TYPE_CHECKING:
    from blocks.fabric import NetworkFabric
    from blocks.world import World


class Routers:
    """What the routers on a host translate; whoever changes them can be killed."""

    def __init__(self) -> None:
        self.translate: dict[str, set[str]] = {}
        self.left_until_killed = 1 << 20

    def follow_router(self, router_id: str, read: Callable[[], Router]) -> None:
        if self.left_until_killed == 0:
            raise KeyboardInterrupt
        self.left_until_killed -= 1
        self.translate[router_id] = {each.id for each in read().floating_ips}
        everywhere = [each for ids in self.translate.values() for each in ids]
        assert len(everywhere) == len(set(everywhere)), "two routers answer for it"


@pytest.fixture(name="site")
def _site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "state.db")
    yield site
    site.store.database.dispose()


@pytest.mark.parametrize("killed_at", [0, 1])
@pytest.mark.parametrize("killed", ["attach", "detach"])
def test_a_move_that_was_killed_is_made_good_by_the_next(
    site: Site, killed: str, killed_at: int
) -> None:
    routers = Routers()
    world = cast("World", SimpleNamespace(store=site.store, fabric=routers))
    beyond = site.network(site.mine, "beyond", "10.9.0.0/24")
    second = site.made_router("second", beyond, site.public)
    target = site.guest(site.mine, beyond, "10.9.0.20")

    def change(action: str, **values: Any) -> None:  # noqa: ANN401
        request = FloatingIpRequest(action=action, name=site.floating, **values)
        ACTIONS[action](world, site.mine, request)

    change("attach", port=site.port)
    assert routers.translate[site.router.id] == {site.floating}
    moves = {"attach": {"port": target}, "detach": {}}
    routers.left_until_killed = killed_at
    try:
        change(killed, **moves[killed])
    except KeyboardInterrupt:
        pass
    else:
        assert (killed, killed_at) == ("detach", 1), "a move is two changes, the other is one"
    routers.left_until_killed = 1 << 20
    change("attach", port=target)
    assert routers.translate[second.id] == {site.floating}
    assert routers.translate[site.router.id] == set()


@pytest.mark.parametrize("killed_at", [0, 1])
def test_a_port_that_goes_lets_its_floating_ip_go(site: Site, killed_at: int) -> None:
    """Also what was recorded only, as whoever did it was killed."""
    routers, store = Routers(), site.store
    world = cast("World", SimpleNamespace(store=store, fabric=routers))
    request = FloatingIpRequest(action="attach", name=site.floating, port=site.port)
    ACTIONS["attach"](world, site.mine, request)
    routers.left_until_killed = killed_at
    with pytest.raises(KeyboardInterrupt):
        let_go({site.port}, store, cast("NetworkFabric", routers))
    assert routers.translate[site.router.id] == {site.floating}
    routers.left_until_killed = 1 << 20
    let_go({site.port}, store, cast("NetworkFabric", routers))
    assert routers.translate[site.router.id] == set()
    floating = store.floating_ips.get(site.floating)
    assert (floating.port_id, floating.former_router_id) == (None, None)
    assert store.floating_ips.delete(floating.id)
