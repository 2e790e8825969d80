"""Fault injection: `FIFTY_FAULT=STEP:WHAT[:WHEN]`, several with commas.

STEP is a step's number, or `u` and the number for its undo. WHAT is `raise` (an error
that is not worth a retry), `flake` (a transient one, on the first attempt only), `kill`
(SIGKILL to this process) or `hang` (until the build is stopped). WHEN is `before` the
effect (the default) or `after`: then the effect is there and the checkpoint is not.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from contextvars import ContextVar
from dataclasses import dataclass

from blocks.errors import FiftyError, InvalidRequest, Transient

VARIABLE = "FIFTY_FAULT"
_FORM = re.compile(r"(u?)(\d+):(raise|flake|kill|hang)(?::(before|after))?")

#: Set when the build of this context is stopped. Only the main thread gets signals: what
#: hangs in another one has to be told.
_stopped: ContextVar[threading.Event] = ContextVar("fifty_stopped")


def hang_until(stopped: threading.Event) -> None:
    """Let what hangs in this context from here on hang until this is set."""
    _stopped.set(stopped)


class InjectedFault(FiftyError):
    """A fault that `FIFTY_FAULT` asked for."""

    default_hint = f"unset {VARIABLE}"


@dataclass(frozen=True)
class Fault:
    """One fault to inject."""

    step: int
    undo: bool
    what: str
    when: str


def parse(text: str) -> list[Fault]:
    """Read the variable's value.

    Raises:
        InvalidRequest: A part of it is not of the form `STEP:WHAT[:WHEN]`.
    """
    faults = []
    for part in filter(None, text.split(",")):
        match = _FORM.fullmatch(part.strip())
        if match is None:
            raise InvalidRequest(
                f"{VARIABLE}: {part!r} is not of the form STEP:WHAT[:WHEN]",
                hint="for example 36:raise, u36:raise, 30:kill:after",
            )
        undo, step, what, when = match.groups()
        faults.append(Fault(int(step), bool(undo), what, when or "before"))
    return faults


def strike(step: int, when: str, *, attempt: int, undo: bool = False) -> None:
    """Do what `FIFTY_FAULT` asks for at this point, if it asks for anything.

    Raises:
        InjectedFault: For `raise`.
        Transient: For `flake`.
    """
    for fault in parse(os.environ.get(VARIABLE, "")):
        if (fault.step, fault.undo, fault.when) != (step, undo, when):
            continue
        where = f"{when} step {'u' if undo else ''}{step}"
        if fault.what == "raise":
            raise InjectedFault(f"injected fault {where}")
        if fault.what == "flake" and attempt == 1:
            raise Transient(f"injected transient fault {where}")
        if fault.what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault.what == "hang":
            _stopped.get(threading.Event()).wait()
            raise InjectedFault(f"hung {where}, until the build was stopped")
