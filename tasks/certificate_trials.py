"""What a certification does with the guest: asks it, and tries a volume and a snapshot.

Nothing here decides: `blocks.images.certification` does, by the evidence.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath

from prefect import get_run_logger

from blocks.errors import Conflict, GuestFault, HostFault, Transient, Unsupported
from blocks.guest import Execution
from blocks.hypervisor import milestones, tail
from blocks.hypervisor.internal_snapshots import InternalSnapshots
from blocks.images.certification import (
    INSIDE,
    Login,
    Outcome,
    Trial,
    Wanted,
    boot_log,
    key_login,
    not_applicable,
    not_run,
    snapshot,
    volume,
)
from blocks.images.certification.acts import keep, kept, read_volume, write_volume
from blocks.images.certification.certificate import line_of
from blocks.images.certification.probe import answers, script
from blocks.resources import Volume
from blocks.settings import settings
from blocks.state.tables.base import now
from tasks.certificate_build import Certification
from tasks.certificate_guest import SCRIPT_S, Guest, the_guest
from tasks.steps_41_47_hypervisor import FAILURE_SIGNS
from tasks.volume_change import attach_volume, detach_volume

#: How long a disk that is plugged in may take to be seen by the guest.
_APPEARS_S = 30
_VOLUME_GIB = 1
#: ssh(1): it could not go on, not what it ran.
_SSH_LOST = 255
_SNAPSHOT = "certificate"


@dataclass(frozen=True)
class Asked:
    """What the guest told.

    Attributes:
        reached: Whether one can log in.
        at: The host's time when it was asked.
        versions: What it says of itself.
        outcomes: How the tests went that need no trial.
    """

    reached: bool
    at: datetime
    versions: Mapping[str, str]
    outcomes: Sequence[Outcome]


def ask(subject: Certification, injected: PurePosixPath) -> Asked:
    """Ask all that is decided by one login, and by the console's log."""
    guest = the_guest(subject)
    step = (guest.build.fault or {}).get("step")
    # Where step 49 has waited in vain already, nobody waits once more.
    limit = settings().ready_wait_s or guest.image.boot_timeout_s
    last = tail(guest.console)
    dead = any(sign.search(line.encode()) for sign in FAILURE_SIGNS for line in last)
    greeting = guest.banner(limit if step in (47, 48) and not dead else 0.0)
    at, said, done = now(), {}, None
    if greeting is not None:
        mark = uuid.uuid4().hex
        done = guest.run(script(mark, injected, int(limit)), limit + SCRIPT_S)
        said = dict(answers(done.output, mark))
        at = now()
        get_run_logger().info("the guest was asked, %.1f s", done.duration_s)
    login = Login(
        banner=greeting,
        let_in="end" in said,
        said=line_of(done.output) if done is not None and "end" not in said else "",
        stranger=greeting is not None and guest.lets_in_a_stranger(),
        console=last,
    )
    wanted = _wanted(subject, guest, injected, at)
    outcomes = [key_login(login), boot_log(milestones(guest.console))]
    if login.let_in:
        outcomes += [test(said, wanted) for test in INSIDE.values()]
    else:
        outcomes += not_run("nobody can log in, so the guest cannot be asked", INSIDE)
    return Asked(login.let_in, at, _versions(said), outcomes)


def _wanted(subject: Certification, guest: Guest, path: PurePosixPath, at: datetime) -> Wanted:
    image, token = guest.image, str(subject.plan["token"])
    injected = bool(guest.build.request.get("inject"))
    marker = subject.store.journal.entries(guest.build.id, guest.build.generation)
    ready = any(entry.step == 49 and entry.state == "done" for entry in marker)
    return Wanted(
        name=subject.trial.name,
        disk_gib=subject.flavor.disk_gib,
        zone=subject.certify_request.timezone,
        at=at,
        path=str(path),
        injected=token if injected else None,
        why_not_injected=(
            "nothing can be written into an image that is encrypted"
            if image.encrypted
            else "nothing can be written into it before it boots: its root is not known for ext4"
        ),
        script=token,
        marker=(image.ready_marker or "") if ready else "",
    )


def _versions(said: Mapping[str, str]) -> dict[str, str]:
    """What a guest says of its own versions."""
    release = dict(
        line.partition("=")[::2] for line in said.get("release", "").splitlines() if "=" in line
    )
    found = {"guest": release.get("PRETTY_NAME", "").strip("\"'"), "kernel": said.get("kernel", "")}
    if said.get("agent"):
        found["cloud-init"] = said.get("cloud-init", "")
    return {name: line_of(text) for name, text in found.items() if text}


class _Failed(Exception):
    """An act of a trial did not succeed; why, in words."""


def _acts(work: Callable[[list[str]], None]) -> Trial:
    """A trial, whose acts are noted one by one."""
    done: list[str] = []
    try:
        work(done)
    except _Failed as error:
        return Trial(done, str(error))
    return Trial(done)


def _said(done: Execution) -> str:
    """What a script said that succeeded.

    Raises:
        _Failed: It did not.
    """
    if done.exit_code != 0:
        why = f"what the guest was to do ended with {done.exit_code}"
        if done.exit_code is None:
            why = "what the guest was to do was given up"
        if done.exit_code == _SSH_LOST:
            why = "the guest was lost: ssh ended with 255"
        raise _Failed(f"{why}: {line_of(done.output) or 'nothing was said'}")
    return done.output.strip()


def try_volume(subject: Certification) -> Outcome:
    """Plug a volume in, have it formatted and written, unplug it, plug it in, and read it."""
    guest, world, trial = the_guest(subject), subject.world, subject.trial
    volume_id = str(uuid.uuid5(uuid.UUID(guest.build.id), "certificate"))
    words = str(subject.plan["token"])

    def attach() -> Volume:
        return trial.under_lease(
            guest.build, lambda: attach_volume(world, guest.build, volume_id, _VOLUME_GIB)
        )

    def detach(*, delete: bool) -> None:
        try:
            trial.under_lease(
                guest.build, lambda: detach_volume(world, guest.build, volume_id, delete=delete)
            )
        except Transient as error:
            raise _Failed(error.message) from error

    def work(done: list[str]) -> None:
        plugged = attach()
        done.append(f"attached, {plugged.size_gib} GiB, serial {volume_id[:20]}")
        done.append(_said(guest.run(write_volume(volume_id[:20], words, _APPEARS_S))))
        detach(delete=False)
        done.append("detached")
        attach()
        read = _said(guest.run(read_volume(volume_id[:20], _APPEARS_S)))
        # Among what sudo, for example, may complain of.
        if words not in read.splitlines():
            raise _Failed(f"attached again, it holds {line_of(read)!r}, not {words!r}")
        done.append("attached again: what was written is read")
        detach(delete=True)

    tried = _acts(work)
    if tried.failed:
        # What still holds it now is told already; and it goes with its VM.
        _acts(lambda _done: detach(delete=True))
    return volume(tried)


def try_snapshot(subject: Certification) -> Outcome:
    """Write a file, take a snapshot, change the file, revert, and read the file."""
    guest, world = the_guest(subject), subject.world
    snapshots = InternalSnapshots(world.hypervisor.connection, world.site)
    before = f"{subject.plan['token']} before"
    vm_id = guest.build.id
    if guest.image.encrypted:
        return not_applicable("its disk is encrypted: VMs of it can have no snapshots", "snapshot")
    if subject.store.volumes.of(vm_id):
        # libvirt takes them of all disks or of none.
        return not_run("the volume that was tried is still in it", ["snapshot"])[0]

    def take() -> None:
        snapshots.take(vm_id, _SNAPSHOT)

    def revert() -> None:
        world.hypervisor.destroy(vm_id)
        snapshots.revert(vm_id, _SNAPSHOT)
        # libvirt has put back its definition of then; and QEMU's start, its ports' rates.
        world.hypervisor.define(world.store.builds.get(vm_id).plan["xml"])
        world.hypervisor.start_paused(vm_id)
        world.hypervisor.resume(vm_id)

    def act(change: Callable[[], None]) -> None:
        try:
            subject.trial.under_lease(guest.build, change)
        except (Conflict, GuestFault, HostFault, Unsupported) as error:
            raise _Failed(error.message) from error

    def work(done: list[str]) -> None:
        _said(guest.run(keep(before)))
        act(take)
        done.append("taken of the running guest")
        _said(guest.run(keep("after")))
        act(revert)
        limit = settings().ready_wait_s or guest.image.boot_timeout_s
        if guest.banner(limit) is None:
            raise _Failed("reverted to, the guest does not answer any more")
        read = _said(guest.run(kept()))
        if before not in read.splitlines():
            raise _Failed(f"reverted to, a file holds {line_of(read)!r}, not what it held before")
        done.append("reverted to: the file is as it was before, and the guest answers")
        act(lambda: snapshots.delete(vm_id, _SNAPSHOT))

    return snapshot(_acts(work))
