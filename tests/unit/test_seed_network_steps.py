"""The seed's seven commands as steps: what they record, done twice, undone, and deleted."""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml

from blocks.errors import NotFound
from blocks.resources import NetworkDriver, NetworkRequest
from blocks.settings import Settings
from blocks.state import Caller, StateStore
from blocks.world import World
from flows.create_network import network_steps
from tasks.network_build import NETWORK, NetworkBuild

SEED = Path(__file__).parents[2] / "deployments" / "examples" / "seed-network.yaml"
#: Validation asks Prefect for the caller, and is tested with the bad input.
STEPS = [number for number in NETWORK.steps if number > 1]


class Fabric:
    """Stands for the host, which other tests look at: remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def choose_driver(self, kind: str) -> NetworkDriver:
        del kind
        return NetworkDriver.OPENVSWITCH

    def __getattr__(self, name: str) -> Callable[..., str]:
        def ask(*_arguments: object) -> str:
            self.asked.append(name)
            return name

        return ask


class Running:
    """The seed's request as a build, whose steps are called without Prefect."""

    def __init__(self, home: Path) -> None:
        self.store = StateStore(home / "state.db", "here")
        self.store.initialize()
        tenant = self.store.tenants.create("openstack")
        caller = self.store.tenants.caller(self.store.tenants.issue_token(tenant, "admin"))
        assert isinstance(caller, Caller)
        self.fabric = Fabric()
        self.caller = caller
        form = yaml.safe_load(SEED.read_text())
        build, _new = self.store.builds.open(
            build_id=str(uuid.uuid4()),
            catalogue="network",
            name=form["name"],
            credentials="default",
            request=form,
            request_id="seed",
            flow_run_id=None,
            policy="rollback",
        )
        self.id = build.id
        self.store.builds.note(build.id, caller=asdict(caller))
        self.store.builds.update(build.id, tenant_id=tenant)
        self.request = NetworkRequest.model_validate(form)

    def call(self, function: Callable[..., Any]) -> Any:  # noqa: ANN401
        world = cast(
            "World",
            SimpleNamespace(store=self.store, fabric=self.fabric, settings=Settings()),
        )
        subject = NetworkBuild(world, self.store.builds.get(self.id))
        offered = {"caller": self.caller, "request": self.request}
        names = inspect.signature(function).parameters
        return function(**{name: offered.get(name) or getattr(subject, name) for name in names})

    def do(self) -> None:
        for number in STEPS:
            self.call(NETWORK.steps[number].do)

    def undo(self) -> None:
        for number in reversed(STEPS):
            undo = NETWORK.steps[number].undo
            if undo is not None:
                self.call(undo)


@pytest.fixture(name="running")
def _running(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path)
    yield running
    running.store.database.dispose()


def test_the_flow_takes_every_step_of_the_catalogue_in_order() -> None:
    taken: list[int] = []
    network_steps(cast("Any", lambda step: taken.append(step.number)))
    assert taken == list(NETWORK.steps)


def test_they_record_what_the_seed_asks_for_and_nothing_twice(running: Running) -> None:
    store, tenant = running.store, running.caller.tenant_id
    running.do()
    once = [row for each in (store.networks, store.routers, store.ports) for row in each.list()]
    running.do()
    again = [row for each in (store.networks, store.routers, store.ports) for row in each.list()]
    assert once == again
    inside = store.networks.find(tenant, "openstack-Net")
    assert (inside.type, inside.segment_id, inside.driver) == ("gre", 1, "openvswitch")
    assert inside.mtu == 1500 - 42
    outside = store.networks.find(tenant, "public")
    assert (outside.external, outside.type, outside.mtu) == (True, "flat", 1500)
    router = store.routers.find(tenant, "openstack-router")
    assert [str(leg.port.addresses[0].address) for leg in router.legs] == ["192.168.0.1"]
    assert router.gateway is not None
    assert str(router.gateway.port.addresses[0].address) == "172.24.1.100"
    assert router.snat


def test_undone_nothing_is_left(running: Running) -> None:
    store = running.store
    running.do()
    running.undo()
    running.undo()
    assert [*store.networks.list(), *store.routers.list(), *store.ports.list()] == []
    with pytest.raises(NotFound):
        store.networks.get(running.id)
    # And once more, as a build does that is sent again.
    running.do()
    assert len(store.networks.list()) == 2


def test_deleted_the_external_network_and_the_router_stay(running: Running) -> None:
    store, tenant = running.store, running.caller.tenant_id
    running.do()
    store.builds.update(running.id, state="deleting")
    running.undo()
    assert [network.name for network in store.networks.list()] == ["public"]
    router = store.routers.find(tenant, "openstack-router")
    assert router.legs == ()
    # It has a build of its own, by which it is deleted like any other.
    own = store.builds.find("network", "public", tenant)
    assert own.state == "complete"
    entries = store.journal.entries(own.id, own.generation)
    assert [(entry.step, entry.state) for entry in entries] == [(n, "done") for n in range(1, 6)]
    NetworkRequest.model_validate(own.request)
