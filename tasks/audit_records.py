"""What the state store says, as an audit compares it with the host.

Read before and after a look at the host: every id is recorded before anything of it is made,
and forgotten after all of it is removed. So what neither reading knows belongs to nothing,
and what both expect should be there.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from blocks.errors import NotFound
from blocks.hypervisor import GuestSpec
from blocks.hypervisor.instance_dirs import LAYER, memory_name, owner_of
from blocks.inventory import Found
from blocks.marks import domain_name
from blocks.resources import Instance, InstanceStatus, Port, PortBinding, PortKind
from blocks.state import Build, StateStore
from blocks.state.living import UNDER_WAY, living
from blocks.state.snapshots import CATALOGUES
from blocks.world import World

#: A build that needs attention is at an end; the others that are under way are not.
_ATTENTION = "needs_attention"


@dataclass(frozen=True)
class Expected:
    """Something that is recorded, and so should be on the host.

    Attributes:
        thing: As the inventory tells it.
        of: What it is a part of, in words: `the VM hello, which is ACTIVE`.
        mend: What brings it back.
    """

    thing: Found
    of: str
    mend: str


@dataclass(frozen=True)
class Records:
    """One reading of the state store.

    Attributes:
        owners: The ids of everything that is recorded, and not gone.
        busy: Why what belongs to an id is not looked at now: a run works on its build, or
            its build has stopped.
        attention: The builds whose undo failed, by the ids of all that they may have left.
        stopped: The builds that stopped: no run works on them, and they are at no end.
        expected: What should be on this host.
    """

    owners: frozenset[str]
    busy: frozenset[str]
    attention: dict[str, Build]
    stopped: tuple[Build, ...]
    expected: tuple[Expected, ...] = field(repr=False)


def read_records(world: World) -> Records:
    """Read what is recorded, and what of it is under way."""
    store = world.store
    builds = store.builds.open_ends()
    working = store.leases.live()
    under_way = [one for one in builds if one.state in UNDER_WAY or one.id in working]
    with store.database.read() as session:
        held = living(session)
    routers = {router.id for router in store.routers.list()}
    ports = [port for port in store.ports.list() if _is_held(port, held, routers)]
    busy = {one.id for one in under_way} | set(working)
    for build in under_way:
        busy |= _ids(build)
        if build.catalogue in CATALOGUES and "instance" in build.plan:
            busy.add(build.plan["instance"])
    busy |= set(_belonging(store, ports, busy))
    attention: dict[str, Build] = {}
    for build in builds:
        if build.state == _ATTENTION and build.id not in busy:
            attention |= dict.fromkeys({*_ids(build), *_belonging(store, ports, {build.id})}, build)
    return Records(
        owners=frozenset({*held, *_recorded(store, ports, held)}),
        busy=frozenset(busy),
        attention=attention,
        stopped=tuple(build for build in under_way if build.id not in working),
        expected=tuple(
            one for one in _expected(world, ports) if one.thing.owner not in busy | set(attention)
        ),
    )


def _is_held(port: Port, held: set[str], routers: set[str]) -> bool:
    """Whether a port's record is somebody's, and not one that was forgotten."""
    if port.kind is PortKind.DHCP:
        return True  # it refers to its network, and goes with it
    return port.device_id in (held if port.kind is PortKind.COMPUTE else routers)


def _recorded(store: StateStore, ports: Iterable[Port], held: set[str]) -> Iterator[str]:
    for port in ports:
        yield port.id
    for network in store.networks.list():
        yield network.id
    for router in store.routers.list():
        yield router.id
    for volume in store.volumes.list():
        if volume.instance_id in held:
            yield volume.id
    for image in store.images.list(None):
        yield from (image.id, image.sha256)
    for instance in store.instances.list():
        yield from filter(None, (owner_of(name) for name in _layers_of(store, instance)))


def _layers_of(store: StateStore, instance: Instance) -> Iterator[str]:
    """The files that snapshots have put into a VM's directory, as far as they are recorded."""
    try:
        spec = store.builds.get(instance.id).plan.get("spec")
    except NotFound:
        return  # deleted since it was listed
    if spec is not None:
        yield GuestSpec.model_validate(spec).disks[0].path.name
    for snapshot in store.snapshots.of(instance.id):
        if snapshot.frozen is not None:
            yield snapshot.frozen
            if snapshot.memory:
                yield memory_name(snapshot.id)


def _belonging(store: StateStore, ports: Iterable[Port], builds: set[str]) -> Iterator[str]:
    """The ids of what is recorded as a part of one of these VMs, networks or routers."""
    for port in ports:
        if port.device_id in builds or (port.kind is PortKind.DHCP and port.network_id in builds):
            yield port.id
    for volume in store.volumes.list():
        if volume.instance_id in builds:
            yield volume.id


def _ids(build: Build) -> set[str]:
    """The ids of all that a build may have made, also where the record of it is gone."""
    made = [*build.plan.get("ports", []), *build.plan.get("volumes", [])]
    found = {build.id, *(document["id"] for document in made)}
    if build.catalogue == "network":
        found.add(str(uuid.uuid5(uuid.UUID(build.id), "port dhcp")))
        if build.plan.get("router_is_new"):
            found.add(build.plan["router"])
    return found


def _expected(world: World, ports: list[Port]) -> Iterator[Expected]:
    for instance in world.store.instances.list():
        if instance.status is InstanceStatus.ACTIVE and instance.host == world.store.host:
            of = f"the VM {instance.name}, which is ACTIVE"
            mine = [port for port in ports if port.device_id == instance.id]
            for thing in _parts_of_vm(world, instance, mine):
                yield Expected(thing, of, _mend_vm(instance, thing))
    yield from _expected_networks(world, ports)
    for image in world.store.images.list(None):
        if image.status == "active":
            file = Found(kind="image-file", name=image.path, owner=image.id)
            build = f"`fifty image build {image.recipe} --rebuild`"
            mend = f"{build if image.recipe else 'take it in again'}, or delete it"
            yield Expected(file, f"the image {image.name}", mend)


def _mend_vm(instance: Instance, thing: Found) -> str:
    """What brings a part of a VM back: its data is gone, or only its guest."""
    if thing.kind == "process":
        return f"`fifty vm start {instance.name}`"
    return f"`fifty vm delete {instance.name}`, then create it again"


def _parts_of_vm(world: World, instance: Instance, ports: list[Port]) -> Iterator[Found]:
    store = world.store
    yield Found(kind="domain", name=domain_name(instance.id, instance.name), owner=instance.id)
    yield from world.directories.parts(instance.id)
    for name in _layers_of(store, instance):
        if owner := owner_of(name):
            path = str(world.directories.path(instance.id) / name)
            yield Found(kind=LAYER, name=path, owner=owner)
    for volume in store.volumes.of(instance.id):
        yield Found(kind="file", name=str(world.pool.path_of(volume)), owner=volume.id)
    for port in ports:
        try:
            network = store.networks.get(port.network_id)
        except NotFound:
            continue  # deleted since the ports were read
        subnets = tuple(store.networks.subnets(network.id))
        binding = PortBinding(
            port=port, network=network, subnets=subnets, rules=(), host_name=instance.name
        )
        yield from world.fabric.parts_of_port(binding)


def _expected_networks(world: World, ports: list[Port]) -> Iterator[Expected]:
    store = world.store
    mend = "`fifty reconcile` makes it again, and so does the next VM on it"
    for network in store.networks.list():
        if network.anchor_host != store.host:
            continue
        dhcp = [p for p in ports if p.kind is PortKind.DHCP and p.network_id == network.id]
        subnets = store.networks.subnets(network.id)
        for thing in world.fabric.parts_of_network(network, subnets, dhcp[0] if dhcp else None):
            yield Expected(thing, f"the network {network.name}", mend)
    for router in store.routers.list():
        if router.host == store.host:
            for thing in world.fabric.parts_of_router(router):
                yield Expected(thing, f"the router {router.name}", mend)


def is_there(thing: Found, present: set[tuple[str, str, str]]) -> bool:
    """Whether what is expected was found; of a file, whether it is there at all."""
    return thing.identity in present or (thing.name.startswith("/") and Path(thing.name).exists())
