"""The tests that are decided from outside: login, console, snapshot, volume."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from blocks.images.certification.certificate import Notes, Outcome

#: What a console's log has to tell of: the boot loader alone is no boot.
_BOOT: Mapping[str, str] = {"kernel": "the kernel", "init": "init"}


@dataclass(frozen=True)
class Login:
    """How one could log in.

    Attributes:
        banner: What the SSH server says first; None where nothing answers.
        let_in: Whether the VM's key was let in.
        said: What ssh said, where it was not.
        stranger: Whether a key that nobody gave the VM was accepted.
        console: The console's last lines.
    """

    banner: str | None
    let_in: bool
    said: str
    stranger: bool
    console: Sequence[str] = ()


@dataclass(frozen=True)
class Trial:
    """A trial in several acts: each that succeeded, and what the first other one said.

    Attributes:
        done: The acts, in words.
        failed: The act that failed, and why; empty where none did.
    """

    done: Sequence[str]
    failed: str = ""


def key_login(login: Login) -> Outcome:
    """Whether one logs in with the key that the VM was given, and with no other."""
    notes = Notes("key-login")
    if login.let_in:
        notes.saw(f"the VM's key is let in by {login.banner}")
    elif login.banner is None:
        last = f"; the console's last words: {login.console[-1]}" if login.console else ""
        notes.fail(
            f"no SSH server answers{last}",
            "one has to start at boot, and the guest's firewall to let port 22 through",
        )
    else:
        notes.fail(
            f"{login.banner} does not let the VM's key in: {login.said}",
            "cloud-init's modules users-groups and ssh put the key in place, for the login user "
            "that the image has here (`fifty image show`)",
        )
    if login.stranger:
        notes.fail(
            "a key that nobody gave it is let in, too",
            "see to the SSH server's settings, and to its authorized_keys",
        )
    elif login.let_in:
        notes.saw("a key that nobody gave it is not")
    return notes.outcome()


def boot_log(milestones: Sequence[tuple[str, str]]) -> Outcome:
    """Whether the serial console tells of the boot.

    Args:
        milestones: Its stages, each with its first line, as `hypervisor.milestones` gives them.
    """
    notes = Notes("console")
    seen = dict(milestones)
    for stage, whose in _BOOT.items():
        if stage in seen:
            notes.saw(f"the first line of {whose}: {seen[stage]}")
    if not set(_BOOT) & set(seen):
        notes.fail(
            f"the serial console shows nothing of {' nor of '.join(_BOOT.values())}, only of: "
            f"{', '.join(seen) or 'nothing'}",
            "console=ttyS0 has to be on the kernel's command line, in the boot loader's menu",
        )
    return notes.outcome()


def snapshot(trial: Trial) -> Outcome:
    """Whether a snapshot can be taken and reverted to."""
    return _trial(
        "snapshot",
        trial,
        "in a VM of it: `fifty vm snapshot create VM one --internal`, `revert`, and look at its "
        "console for what does not stand that its memory, disk and clock go back",
    )


def volume(trial: Trial) -> Outcome:
    """Whether a volume can be attached, formatted, written, detached and read again."""
    return _trial(
        "volume",
        trial,
        "it takes the driver virtio_blk, a kernel that sees disks that are plugged in while it "
        "runs, and a program that makes file systems, such as mkfs.ext4",
    )


def _trial(test: str, trial: Trial, hint: str) -> Outcome:
    notes = Notes(test)
    for act in trial.done:
        notes.saw(act)
    if trial.failed:
        notes.fail(trial.failed, hint)
    return notes.outcome()


def not_applicable(why: str, test: str) -> Outcome:
    """The outcome of a test that the image is not made for; why, in words."""
    return Notes(test).not_applicable(why)


def not_run(why: str, tests: Iterable[str]) -> list[Outcome]:
    """The outcomes of tests that something kept; why, in words."""
    return [Notes(test).not_run(why) for test in tests]
