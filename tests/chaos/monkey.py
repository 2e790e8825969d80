"""What happens in the chaos run: a random sequence of requests, kills and cancels.

All that is random is drawn before it is looked what there is: so the same seed is the same
sequence of wishes, whatever became of those before. What they meet depends on the machine.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cloud import Cloud
from tests.service.served import Served, ask, children
from tests.waiting import eventually

#: How often each is wished for.
WISHES = {
    "create": 40,
    "delete": 14,
    "resume": 8,
    "rollback": 4,
    "create network": 6,
    "delete network": 4,
    "kill a command": 9,
    "kill a run": 9,
    "kill the service": 4,
    "terminate a command": 4,
    "cancel a run": 8,
}
PREFIX = "chaos-"
#: How often a name is taken at random, and may be anybody's or nobody's.
_ANY_NAME = 0.15
#: The first is always there; the others come and go.
NETWORKS = {f"chaos-net-{number}": f"10.77.{40 + number}.0/24" for number in range(3)}
STEADY, *COMING_AND_GOING = NETWORKS
#: So many commands and posted runs at a time.
AT_ONCE = 6
_PAUSE_S = 3.0
_FLOWS = ("create-vm", "delete-vm", "resume-vm", "rollback-vm", "finish-build", "create-network",
          "delete-network")  # fmt: skip
_NOT_OVER = ("SCHEDULED", "PENDING", "RUNNING", "CANCELLING")


def runs(*types: str) -> list[dict[str, Any]]:
    """The newest flow runs with a state of one of these types."""
    wanted = {"flow_runs": {"state": {"type": {"any_": types}}}, "sort": "START_TIME_DESC"}
    return list(ask("POST", "/flow_runs/filter", json=wanted))


@dataclass
class Figures:
    """What happened, counted."""

    seed: int = 0
    seconds: float = 0
    wishes: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    runs: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        lines = [f"CHAOS_SEED={self.seed} CHAOS_SECONDS={self.seconds:g}"]
        for name in ("wishes", "answers", "runs", "ends"):
            counted = getattr(self, name)
            words = ", ".join(f"{what} {number}" for what, number in sorted(counted.items()))
            lines.append(f"{name}: {words}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Wish:
    """Something that is to happen; all that is random in it."""

    kind: str
    known: bool
    number: int
    network: str
    typed: bool
    policy: str
    interrupt: str
    fault: str
    which: float
    pause_s: float

    @staticmethod
    def drawn(chance: random.Random) -> Wish:
        """The next one."""
        [kind] = chance.choices(list(WISHES), list(WISHES.values()))
        step, when = chance.randint(9, 50), chance.choice(("before", "after"))
        faulty, undo_faulty = chance.random() < 0.15, chance.random() < 0.2
        fault = f"{step}:raise:{when}" + (
            f",u{chance.randint(9, step)}:raise" if undo_faulty else ""
        )
        known, network = chance.random() > _ANY_NAME, chance.choice(COMING_AND_GOING)
        steady = chance.random() < 0.75 and "network" not in kind
        return Wish(
            kind=kind,
            known=known,
            number=chance.randrange(30),
            network=STEADY if steady else network,
            typed=chance.random() < 0.5,
            policy="keep" if chance.random() < 0.3 else "rollback",
            interrupt=chance.choice(("resume", "rollback")),
            fault=fault if faulty else "",
            # Rather one of the older ones: those that are just starting have done nothing yet.
            which=chance.random() ** 2,
            pause_s=chance.random() * _PAUSE_S,
        )


@dataclass
class Command:
    """`fifty` in a process of its own."""

    words: tuple[str, ...]
    process: subprocess.Popen[bytes]
    said: Path


class Monkey:
    """Does what is wished for.

    Args:
        cloud: The site.
        served: Its service.
        folder: For what commands say.
        figures: Where all is counted.
    """

    def __init__(self, cloud: Cloud, served: Served, folder: Path, figures: Figures) -> None:
        self._cloud = cloud
        self._served = served
        self._folder = folder
        self._figures = figures
        self._begun = time.monotonic()
        self._created = 0
        self.commands: list[Command] = []
        self.posted: list[str] = []

    def rage(self, seed: int, seconds: float) -> None:
        """Do one thing after the other for so many seconds; nothing is waited for."""
        chance = random.Random(seed)  # noqa: S311
        while time.monotonic() - self._begun < seconds:
            eventually(lambda: self._at_work() < AT_ONCE, "end of any command", 600)
            wish = Wish.drawn(chance)
            what = self._do(wish)
            self._figures.wishes[wish.kind if what else f"{wish.kind} (there was none)"] += 1
            self.tell(f"{wish.kind}: {what or 'there is none'}")
            time.sleep(wish.pause_s)

    def tell(self, what: str) -> None:
        """Write down what happened, and when."""
        print(f"{time.monotonic() - self._begun:7.2f} {what}")

    def finish(self) -> None:
        """Wait until all that was begun has ended, by itself."""
        for command in self.commands:
            self._answered(command, command.process.wait(600))
        for run in self.posted:
            state = self._served.end_of(run)
            self._figures.runs[state["name"]] += 1

    def _at_work(self) -> int:
        """How many commands and posted runs have not ended."""
        for command in self.commands[:]:
            code = command.process.poll()
            if code is not None:
                self._answered(command, code)
                self.commands.remove(command)
        return len(self.commands) + len({run["id"] for run in runs(*_NOT_OVER)} & set(self.posted))

    def _answered(self, command: Command, code: int) -> None:
        said = command.said.with_suffix(".err").read_text()
        assert "Traceback" not in said, (command.words, said)
        try:
            document = json.loads(command.said.with_suffix(".out").read_text() or "{}")
        except json.JSONDecodeError:
            document = {}  # it was killed while it wrote
        error = document.get("error", "") if isinstance(document, dict) else ""
        assert code in (0, 1, 143, -signal.SIGKILL, -signal.SIGTERM), (command.words, code, said)
        self._figures.answers[" ".join(filter(None, (f"exit {code}", error)))] += 1
        what = document.get("message", "") if error else ""
        self.tell(f"  `{' '.join(command.words)}` ended with {code} {error} {what}")

    def _do(self, wish: Wish) -> str:
        """Do it; what was done, or nothing where there was nothing to do it to."""
        targets: dict[str, Callable[[Wish], str]] = {
            "kill a command": lambda wish: self._signal_command(wish, signal.SIGKILL),
            "terminate a command": lambda wish: self._signal_command(wish, signal.SIGTERM),
            "kill a run": self._kill_run,
            "kill the service": self._kill_service,
            "cancel a run": self._cancel,
        }
        if wish.kind in targets:
            return targets[wish.kind](wish)
        return self._request(wish)

    def _request(self, wish: Wish) -> str:
        """Ask for something, as a command or as a posted run."""
        name = wish.network if "network" in wish.kind else self._vm(wish)
        verb, thing = (*wish.kind.split(), "vm")[:2]
        vm = {"flavor": "tiny", "image": "micro", "networks": [wish.network], "key": "default",
              "on_failure": wish.policy, "on_interrupt": wish.interrupt}  # fmt: skip
        if wish.typed:
            words = [thing, verb, name]
            if wish.kind == "create":
                words += ["--flavor", "tiny", "--image", "micro", "--network", wish.network]
                words += ["--on-failure", wish.policy, "--on-interrupt", wish.interrupt]
            if wish.kind == "create network":
                words += ["--cidr", NETWORKS[name]]
            self._type(*words, fault=wish.fault if wish.kind == "create" else "")
            return " ".join((*words, wish.fault))
        request: dict[str, Any] = {"name": name}
        if wish.kind == "create":
            request |= vm
        if wish.kind == "create network":
            request |= {"cidr": NETWORKS[name]}
        fault = wish.fault if wish.kind == "create" else ""
        self.posted.append(self._served.post(f"{verb}-{thing}", request, fault=fault))
        return f"posted {verb}-{thing} {request} {fault} as {self.posted[-1]}"

    def _vm(self, wish: Wish) -> str:
        """The VM that a request is about: a new one, one that is there, or any name."""
        there = [vm.name for vm in self._cloud.world.store.instances.list()]
        ours = [name for name in there if name.startswith(PREFIX)]
        if not wish.known or (wish.kind != "create" and not ours):
            return f"{PREFIX}{wish.number}"
        if wish.kind == "create":
            self._created += 1
            return f"{PREFIX}new-{self._created}"
        return ours[int(wish.which * len(ours))]

    def _type(self, *words: str, fault: str) -> None:
        said = self._folder / f"{time.monotonic_ns()}"
        out, err = said.with_suffix(".out"), said.with_suffix(".err")
        with out.open("wb") as output, err.open("wb") as errors:
            process = subprocess.Popen(
                [str(Path(sys.executable).with_name("fifty")), *words, "--json"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                env=self._cloud.environment(fault),
            )
        self.commands.append(Command(words, process, said))

    def _signal_command(self, wish: Wish, number: signal.Signals) -> str:
        running = [command for command in self.commands if command.process.poll() is None]
        if not running:
            return ""
        command = running[int(wish.which * len(running))]
        command.process.send_signal(number)
        return f"`{' '.join(command.words)}`, process {command.process.pid}"

    def _kill_run(self, wish: Wish) -> str:
        pids = children(self._served.forkserver)
        if not pids:
            return ""
        pid = pids[int(wish.which * len(pids))]
        os.kill(pid, signal.SIGKILL)
        return f"process {pid}"

    def _kill_service(self, _wish: Wish) -> str:
        """Kill the service and all its runs, as the power would, and start it again."""
        ours = [self._served.pid, self._served.forkserver]
        for pid in ours:
            os.kill(pid, signal.SIGSTOP)
        runs = children(self._served.forkserver)
        for pid in (*runs, *ours):
            os.kill(pid, signal.SIGKILL)
        self._served.stop()
        self._served.start()
        return f"and {len(runs)} runs"

    def _cancel(self, wish: Wish) -> str:
        running = [run for run in reversed(runs("RUNNING")) if run["name"].split()[0] in _FLOWS]
        if not running:
            return ""
        run = running[int(wish.which * len(running))]
        self._served.cancel(run["id"])
        return f"{run['name']} {run['id']}"
