"""What of ours is astray: on the host and not recorded, or recorded and not on the host."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict

from blocks.errors import FiftyError
from blocks.inventory import Found, HasInventory
from blocks.resources import InstanceStatus
from blocks.world import World


class Astray(BaseModel):
    """Something that should not be there, or should and is not."""

    model_config = ConfigDict(frozen=True)

    kind: str
    name: str
    owner: str
    age_s: float | None
    why: str


class AuditReport(BaseModel):
    """What an audit found.

    Attributes:
        clean: Nothing is astray any more (after a fix: all of it was removed).
        astray: What was found.
        removed: What a fix removed.
        failed: What a fix could not remove, and why.
    """

    clean: bool
    astray: list[Astray]
    removed: list[str] = []
    failed: list[str] = []


def audit(world: World, *, fix: bool = False) -> AuditReport:
    """Compare what carries our mark on this host with the state store, both ways.

    Args:
        world: The connections of this host.
        fix: Also remove what is on the host and belongs to nothing that is recorded.
    """
    found = list(_on_the_host(world))
    owners = _owners(world)
    strays = [(part, thing) for part, thing in found if thing.owner not in owners]
    missing = list(_missing(world, {thing.owner for _part, thing in found}))
    astray = [
        Astray(
            kind=thing.kind,
            name=thing.name,
            owner=thing.owner,
            age_s=thing.age_s,
            why="on the host, but nothing that is recorded owns it",
        )
        for _part, thing in strays
    ] + missing
    if not fix:
        return AuditReport(clean=not astray, astray=astray)
    removed, failed = [], []
    for part, thing in strays:
        try:
            part.remove(thing)
            removed.append(f"{thing.kind} {thing.name}")
        except FiftyError as error:
            failed.append(f"{thing.kind} {thing.name}: {error.message}")
    return AuditReport(
        clean=not failed and not missing, astray=astray, removed=removed, failed=failed
    )


def _on_the_host(world: World) -> Iterator[tuple[HasInventory, Found]]:
    # Guests first, so that what they hold open is free when its turn comes.
    parts: tuple[HasInventory, ...] = (
        world.hypervisor,
        world.pool,
        world.images,
        world.directories,
        world.fabric,
    )
    for part in parts:
        for thing in part.inventory():
            yield part, thing


def _owners(world: World) -> set[str]:
    """The ids of everything that is recorded and not deleted."""
    store = world.store
    owners = {build.id for build in store.builds.unfinished()}
    for instance in store.instances.list():
        gone = instance.status is InstanceStatus.ERROR and instance.host is None
        if not gone:
            owners.add(instance.id)
    owners |= {port.id for port in store.ports.list()}
    owners |= {network.id for network in store.networks.list()}
    owners |= {router.id for router in store.routers.list()}
    owners |= {volume.id for volume in store.volumes.list()}
    owners |= {image.id for image in store.images.list(None)}
    owners |= {image.sha256 for image in store.images.list(None)}
    return owners


def _missing(world: World, present: set[str]) -> Iterator[Astray]:
    store = world.store
    for instance in store.instances.list():
        here = instance.host == store.host and instance.status is InstanceStatus.ACTIVE
        if here and instance.id not in present:
            yield Astray(
                kind="instance",
                name=instance.name,
                owner=instance.id,
                age_s=None,
                why="recorded ACTIVE, but nothing of it is on the host",
            )
