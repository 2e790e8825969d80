"""What a certification does with a guest: each act with one that does it, and one that does not.

The guest's shell, libvirt and the volumes are stood in for: guests that are broken in just such
a way are hard to make. Images that are broken are booted in tests/e2e.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any, cast

import pytest

from blocks.errors import HostFault, Transient
from blocks.guest import Execution
from blocks.images.certification import INSIDE, TESTS, Outcome, Verdict
from blocks.images.certification.acts import keep, kept, read_volume, write_volume
from tasks import certificate_guest, certificate_trials
from tasks.certificate_build import Certification
from tests.unit.test_image_certification import MICRO, TOKEN

VM = "0c5cbbcd-30a1-4a41-a0ca-6a2d9b1f1b0e"
BOOT = "SeaBIOS (version 1.16)\n[    0.000000] Linux version 6.1\nFIFTY-MARK init 0.53\n"


@dataclass
class StandIn:
    """A guest, its host and its volume, as a certification finds them.

    Attributes:
        console: What its serial console tells.
        told: What it answers to what is asked in one go, where that is not as micro does.
        closed: Whether it lets nobody in, and
        stranger: whether it lets anybody in.
        on_the_volume: What it reads there after it was plugged in again.
        in_the_file: What its file holds after the revert.
        does_not: What is not done: an act of the host, or a script, which ends with
        code: this then.
        answers: Whether its SSH server answers.
        did: What was done with it.
    """

    console: str = BOOT
    told: Mapping[str, str] = field(default_factory=dict)
    closed: bool = False
    stranger: bool = False
    on_the_volume: str = TOKEN
    in_the_file: str = f"{TOKEN} before"
    does_not: str = "-"
    code: int | None = 13
    answers: bool = True
    serial: str = ""
    did: list[str] = field(default_factory=list)

    def run(self, text: str, _timeout_s: float = 0.0) -> Execution:
        """Run a script in its shell."""
        if self.closed:
            return Execution(255, "Permission denied (publickey).", 0, 0.1)
        mark = re.search(r"printf '\\n(\w+) %s", text)
        if mark is not None:
            clock = {"hostname": "trial", "clock": f"{int(time.time())} +0000 UTC"}
            told = {**MICRO, **clock, **self.told}
            parts = [f"\n{mark[1]} {name}\n{answer}" for name, answer in told.items()]
            return Execution(0, "".join(parts), 0, 0.1)
        # What sudo, for example, complains of comes first.
        acts = {
            write_volume(self.serial, TOKEN, 30): ("write", "formatted by mke2fs and written"),
            read_volume(self.serial, 30): ("read", f"sudo: hm\n{self.on_the_volume}"),
            keep(f"{TOKEN} before"): ("keep before", ""),
            keep("after"): ("keep after", ""),
            kept(): ("look", f"sudo: hm\n{self.in_the_file}"),
        }
        act, said = acts[text]
        if act == self.does_not:
            return Execution(self.code, "it does not mount", 0, 0.1)
        self.did.append(act)
        return Execution(0, f"{said}\n", 0, 0.1)

    def banner(self, _limit_s: float) -> str | None:
        """What its SSH server says first."""
        return "SSH-2.0-dropbear" if self.answers else None

    def lets_in_a_stranger(self) -> bool:
        """Whether it lets in whoever comes."""
        return self.stranger

    def act(self, name: str) -> None:
        """Its host does something with it."""
        if name == self.does_not:
            raise (Transient if name == "detach" else HostFault)("the host says no")
        self.did.append(name)

    def attach(self, _world: object, _build: object, volume: str, gib: int) -> SimpleNamespace:
        """Its host plugs a volume in."""
        self.serial = volume[:20]
        self.act("attach")
        return SimpleNamespace(size_gib=gib)

    def detach(self, _world: object, _build: object, _volume: str, *, delete: bool) -> None:
        """Its host unplugs a volume."""
        self.act("delete" if delete else "detach")


def put(guest: StandIn, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Certification:
    """The certification whose trial VM is this guest."""
    console = folder / "console.log"
    console.write_text(guest.console)
    found = cast("Any", guest)
    found.build = SimpleNamespace(id=VM, generation=1, fault=None, request={"inject": ["one"]})
    found.image = SimpleNamespace(encrypted=False, boot_timeout_s=5, ready_marker="ready")
    found.console = console
    quiet = SimpleNamespace(info=lambda *_words: None)
    snapshots = SimpleNamespace(
        take=lambda _vm, _name: guest.act("take"),
        revert=lambda _vm, _name: guest.act("revert"),
        delete=lambda _vm, _name: guest.act("forget"),
    )
    hypervisor = SimpleNamespace(
        connection=None,
        destroy=lambda _vm: guest.act("stop"),
        define=lambda _xml: guest.act("define"),
        start_paused=lambda _vm: guest.act("start"),
        resume=lambda _vm: guest.act("go on"),
    )
    instead = {
        "the_guest": lambda _subject: guest,
        "attach_volume": guest.attach,
        "detach_volume": guest.detach,
        "InternalSnapshots": lambda _connection, _site: snapshots,
        "get_run_logger": lambda: quiet,
    }
    for name, one in instead.items():
        monkeypatch.setattr(certificate_trials, name, one)
    done = SimpleNamespace(step=49, state="done")
    store = SimpleNamespace(
        volumes=SimpleNamespace(of=lambda _vm: []),
        journal=SimpleNamespace(entries=lambda _vm, _generation: [done]),
        builds=SimpleNamespace(get=lambda _vm: SimpleNamespace(plan={"xml": "<domain/>"})),
    )
    subject = SimpleNamespace(
        plan={"token": TOKEN},
        store=store,
        world=SimpleNamespace(store=store, hypervisor=hypervisor, site="0000"),
        trial=SimpleNamespace(name="trial", under_lease=lambda _build, work: work()),
        flavor=SimpleNamespace(disk_gib=1),
        certify_request=SimpleNamespace(timezone="UTC"),
    )
    return cast("Certification", subject)


def asked(guest: StandIn, monkeypatch: pytest.MonkeyPatch, folder: Path) -> dict[str, Outcome]:
    """What it is asked in one go, by the test."""
    subject = put(guest, monkeypatch, folder)
    told = certificate_trials.ask(subject, PurePosixPath("/etc/fifty-certificate"))
    return {one.test: one for one in told.outcomes}


def failed(outcomes: Mapping[str, Outcome]) -> set[str]:
    return {test for test, one in outcomes.items() if one.verdict is Verdict.FAIL}


def test_a_sound_guest_passes_all_that_is_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = asked(StandIn(), monkeypatch, tmp_path)
    assert found.keys() == TESTS.keys() - {"snapshot", "volume"}
    assert {one.verdict for one in found.values()} == {Verdict.PASS}


#: What is wrong with a guest, by the test that has to fail.
ASKED: Sequence[tuple[str, StandIn, str]] = (
    ("key-login", StandIn(closed=True), "Permission denied"),
    ("key-login", StandIn(answers=False), "no SSH server answers"),
    ("key-login", StandIn(stranger=True), "nobody gave"),
    ("console", StandIn(console="SeaBIOS (version 1.16)\n"), "firmware"),
    ("injected-file", StandIn(told={"injected": "other\nexit 0"}), "other"),
    ("cloud-init", StandIn(told={"script": "other"}), "other"),
    ("root-size", StandIn(told={"root": "x\n/dev/vda1 43008 2 2 5% /"}), "0.04 GiB"),
    ("host-name", StandIn(told={"hostname": "(none)"}), "(none)"),
    ("time-zone", StandIn(told={"clock": f"{int(time.time())} +0530 IST"}), "+0530"),
    ("time-zone", StandIn(told={"clock": "1 +0000 UTC"}), "clock"),
    ("fstab", StandIn(told={"mount-a": "exit 1"}), "mount -a"),
    ("tmp", StandIn(told={"tmp": "left-behind"}), "left-behind"),
)


@pytest.mark.parametrize(("test", "guest", "told"), ASKED)
def test_what_is_wrong_with_a_guest_is_found_by_its_test_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, test: str, guest: StandIn, told: str
) -> None:
    found = asked(guest, monkeypatch, tmp_path)
    assert failed(found) == {test}
    assert told in " ".join(found[test].evidence)
    let_in = guest.answers and not guest.closed
    others = {found[one].verdict for one in INSIDE if one != test}
    assert others == {Verdict.PASS if let_in else Verdict.NOT_RUN}


def test_a_stranger_is_the_owner_of_a_key_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    offered: list[str] = []

    def accepts(*words: object) -> bool:
        offered.append(str(words[3]))
        return len(offered) == 1

    monkeypatch.setattr(certificate_guest, "accepts_key", accepts)
    port = SimpleNamespace(
        network_id=VM, addresses=[SimpleNamespace(address=IPv4Address("198.18.0.2"))]
    )
    subject = SimpleNamespace(
        store=SimpleNamespace(ports=SimpleNamespace(of_device=lambda _vm: [port])),
        world=SimpleNamespace(directories=SimpleNamespace(path=lambda _vm: Path("/nowhere"))),
        image=SimpleNamespace(login_user="root"),
    )
    guest = certificate_guest.Guest(
        cast("Certification", subject), cast("Any", SimpleNamespace(id=VM))
    )
    assert guest.lets_in_a_stranger()
    assert not guest.lets_in_a_stranger()
    first, second = offered
    assert first.startswith("ssh-ed25519 ") and first.split()[1] != second.split()[1]


VOLUME = ["attach", "write", "detach", "attach", "read", "delete"]
SNAPSHOT = [
    "keep before", "take", "keep after",
    "stop", "revert", "define", "start", "go on", "look", "forget",
]  # fmt: skip


def test_a_volume_is_tried_from_the_first_act_to_the_last(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    guest = StandIn()
    found = certificate_trials.try_volume(put(guest, monkeypatch, tmp_path))
    assert (found.test, found.verdict, found.hint) == ("volume", Verdict.PASS, "")
    assert guest.did == VOLUME


@pytest.mark.parametrize(
    ("guest", "told", "did"),
    [
        (StandIn(does_not="write"), "it does not mount", 1),
        (StandIn(does_not="detach"), "the host says no", 2),
        (StandIn(does_not="read"), "ended with 13: it does not mount", 4),
        (StandIn(does_not="read", code=255), "the guest was lost", 4),
        (StandIn(does_not="read", code=None), "given up", 4),
        (StandIn(on_the_volume="other"), "other", 5),
        (StandIn(on_the_volume=""), "holds", 5),
        (StandIn(on_the_volume=f"{TOKEN} and more"), "and more", 5),
    ],
)
def test_a_volume_that_fails_in_an_act_is_told_and_removed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, guest: StandIn, told: str, did: int
) -> None:
    found = certificate_trials.try_volume(put(guest, monkeypatch, tmp_path))
    assert found.verdict is Verdict.FAIL
    assert told in found.evidence[-1]
    assert found.hint
    assert guest.did == [*VOLUME[:did], "delete"]


def test_a_snapshot_is_tried_from_the_first_act_to_the_last(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    guest = StandIn()
    found = certificate_trials.try_snapshot(put(guest, monkeypatch, tmp_path))
    assert (found.test, found.verdict, found.hint) == ("snapshot", Verdict.PASS, "")
    assert guest.did == SNAPSHOT


@pytest.mark.parametrize(
    ("guest", "told", "did"),
    [
        (StandIn(does_not="keep before"), "it does not mount", 0),
        (StandIn(does_not="take"), "the host says no", 1),
        (StandIn(does_not="revert"), "the host says no", 4),
        (StandIn(does_not="start"), "the host says no", 6),
        (StandIn(answers=False), "does not answer", 8),
        (StandIn(does_not="look"), "it does not mount", 8),
        (StandIn(in_the_file="after"), "after", 9),
        (StandIn(in_the_file=f"{TOKEN} beforehand"), "beforehand", 9),
        (StandIn(does_not="forget"), "the host says no", 9),
    ],
)
def test_a_snapshot_that_fails_in_an_act_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, guest: StandIn, told: str, did: int
) -> None:
    found = certificate_trials.try_snapshot(put(guest, monkeypatch, tmp_path))
    assert found.verdict is Verdict.FAIL
    assert told in found.evidence[-1]
    assert found.hint
    assert guest.did == SNAPSHOT[:did]
