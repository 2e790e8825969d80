"""What of ours is astray: on the host and not recorded, or recorded and not on the host."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from blocks.ages import Sightings
from blocks.errors import FiftyError
from blocks.hypervisor.instance_dirs import LAYER
from blocks.hypervisor.secrets import KIND as PASSPHRASE
from blocks.inventory import Found, HasInventory
from blocks.world import World
from tasks.audit_records import Expected, Records, is_there, read_records

_BOOK = "audit.json"
_UNDO_AGAIN = {
    "vm": "vm rollback",
    "snapshot": "vm snapshot delete",
    "revert": "vm snapshot revert",
    "certificate": "image certify",
}


class Astray(BaseModel):
    """Something that should not be there, or should and is not.

    Attributes:
        kind: What it is.
        name: What the host, or the state store, calls it.
        owner: The id that it was made for.
        age_s: For so long, at least, it has been there; None for what is not there.
        why: Why it is astray, and what to do where a fix does not mend it.
        removable: Whether a fix removes it, once it is old enough.
    """

    model_config = ConfigDict(frozen=True)

    kind: str
    name: str
    owner: str
    age_s: float | None
    why: str
    removable: bool


class AuditReport(BaseModel):
    """What an audit found.

    Attributes:
        clean: Nothing was astray.
        mended: All that was astray has been removed.
        astray: What was found.
        removed: What a fix removed.
        failed: What a fix left, and why.
        stopped: Builds that no run works on, in words: what they have is not astray.
    """

    clean: bool
    mended: bool = False
    astray: list[Astray]
    removed: list[str] = []
    failed: list[str] = []
    stopped: list[str] = []


class _Stray(NamedTuple):
    part: HasInventory
    thing: Found
    why: str
    removable: bool


class _Look(NamedTuple):
    strays: list[_Stray]
    missing: list[Expected]
    records: Records


def audit(world: World, *, fix: bool = False) -> AuditReport:
    """Compare what carries our mark on this host with the state store, both ways.

    What belongs to a build that is under way is not looked at: it is the run's, or, where the
    build has stopped, reconcile's. What an undo could not remove is told, and left to the
    rollback that it waits for.

    Args:
        world: The connections of this host.
        fix: Also remove what is on the host, or given out by the state store, and belongs to
            nothing that is recorded. Nothing younger than `FIFTY_AUDIT_GRACE`.
    """
    look = _look_twice(world)
    ages = _ages(world, look.strays)
    report = _report(look, ages)
    if not fix or report.clean:
        return report
    removed, failed = [], []
    for stray in filter(lambda stray: stray.removable, look.strays):
        name = f"{stray.thing.kind} {stray.thing.name}"
        left = _remove(world, stray, ages[stray.thing.identity])
        if left is None:
            removed.append(name)
        else:
            failed.append(f"{name}: {left}")
    after = _look_twice(world)
    _ages(world, after.strays)
    return report.model_copy(
        update={
            "removed": removed,
            "failed": failed,
            "mended": not after.strays and not after.missing,
        }
    )


def _remove(world: World, stray: _Stray, age_s: float) -> str | None:
    """Remove one thing that belongs to nothing; why it was left, or None where it is gone."""
    grace_s = world.settings.audit_grace
    if age_s < grace_s:
        return f"younger than the {grace_s:g} s of FIFTY_AUDIT_GRACE: left for a later audit"
    records = read_records(world)
    if stray.thing.owner in records.busy or _is_had(stray.thing, records.owners):
        return "it belongs to something by now"
    try:
        stray.part.remove(stray.thing)
    except FiftyError as error:
        return error.message
    except OSError as error:
        # One that cannot be removed does not keep the others from it.
        return str(error)
    return None


def _look_twice(world: World) -> _Look:
    """What is astray now, and was a moment ago.

    A server that is being restarted, or a thing that came and went with all that was
    recorded of it while the host was looked at, is not there the second time.
    """
    first = _look(world)
    if not first.strays and not first.missing:
        return first
    again = _look(world)
    strays = {stray.thing.identity for stray in first.strays}
    missing = {one.thing.identity for one in first.missing}
    return _Look(
        [stray for stray in again.strays if stray.thing.identity in strays],
        [one for one in again.missing if one.thing.identity in missing],
        again.records,
    )


def _look(world: World) -> _Look:
    before = read_records(world)
    found = list(_on_the_host(world))
    after = read_records(world)
    owners, busy = before.owners | after.owners, before.busy | after.busy
    strays = [
        _Stray(part, thing, *_why(thing, after))
        for part, thing in found
        if thing.owner not in busy
        and (not _is_had(thing, owners) or thing.owner in after.attention)
    ]
    present = {thing.identity for _part, thing in found}
    still = {one.thing.identity for one in after.expected}
    missing = [
        one
        for one in before.expected
        if one.thing.identity in still and not is_there(one.thing, present)
    ]
    # What is given out and belongs to nothing comes last: an address is free for others
    # when nobody on the host has it any more.
    part = world.store.allocations
    strays += [
        _Stray(part, thing, "given out by the state store, but nothing recorded owns it", True)
        for thing in part.inventory()
        if thing.owner not in busy
    ]
    return _Look(strays, missing, after)


def _is_had(thing: Found, owners: Collection[str]) -> bool:
    """Whether something that is recorded has it; a passphrase is a start's, and no VM's."""
    return thing.kind != PASSPHRASE and thing.owner in owners


def _why(thing: Found, records: Records) -> tuple[str, bool]:
    if thing.kind == PASSPHRASE:
        return "libvirt knows the passphrase of a disk, and nothing starts the VM", True
    build = records.attention.get(thing.owner)
    if build is None and thing.kind == LAYER:
        # It may hold what a guest has written: nobody but a person may say that it is nothing.
        return f"no snapshot that is recorded has it; look at it, then: rm {thing.name}", False
    if build is None:
        return "on the host, but nothing that is recorded owns it", True
    return (
        f"left where an undo of the {build.catalogue} {build.name} failed; "
        f"`fifty {_UNDO_AGAIN.get(build.catalogue, f'{build.catalogue} delete')} {build.name}` "
        "tries again",
        False,
    )


def _on_the_host(world: World) -> Iterator[tuple[HasInventory, Found]]:
    # Guests first, so that what they hold open is free when its turn comes.
    parts: tuple[HasInventory, ...] = (
        world.hypervisor,
        world.hypervisor.passphrases,
        world.directories,
        world.pool,
        world.images,
        world.fabric,
    )
    for part in parts:
        for thing in part.inventory():
            yield part, thing


def _ages(world: World, strays: Collection[_Stray]) -> dict[tuple[str, str, str], float]:
    """For how long each has been there at least: as it says itself, or as it was seen before."""
    book = Sightings(world.settings.home / _BOOK)
    keys = {stray.thing.identity: "\0".join(stray.thing.identity) for stray in strays}
    seen = book.look(keys.values())
    return {
        stray.thing.identity: max(stray.thing.age_s or 0.0, seen[keys[stray.thing.identity]])
        for stray in strays
    }


def _report(look: _Look, ages: dict[tuple[str, str, str], float]) -> AuditReport:
    astray = [
        Astray(
            kind=stray.thing.kind,
            name=stray.thing.name,
            owner=stray.thing.owner,
            age_s=ages[stray.thing.identity],
            why=stray.why,
            removable=stray.removable,
        )
        for stray in look.strays
    ]
    astray += [_missing(one) for one in look.missing]
    stopped = [
        f"the {build.catalogue} {build.name} has stopped while {build.state}"
        for build in look.records.stopped
    ]
    return AuditReport(clean=not astray, astray=astray, stopped=stopped)


def _missing(one: Expected) -> Astray:
    return Astray(
        kind=one.thing.kind,
        name=one.thing.name,
        owner=one.thing.owner,
        age_s=None,
        why=f"not on the host, but a part of {one.of}; {one.mend}",
        removable=False,
    )
