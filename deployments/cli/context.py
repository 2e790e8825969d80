"""What commands share: options, the state store, and who may run what."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated, TypeVar

from cyclopts import Parameter

from blocks.errors import Conflict, Denied, NotFound
from blocks.settings import settings
from blocks.state import StateStore

Json = Annotated[
    bool,
    Parameter(name="--json", negative="", show_default=False, help="Print one JSON document."),
]
#: Options that can be given several times.
Several = Annotated[list[str] | None, Parameter(negative="", show_default=False)]
Flag = Annotated[bool, Parameter(negative="", show_default=False)]
Credentials = Annotated[
    str | None,
    Parameter(
        name="--credentials",
        show_default=False,
        help="Name of the Prefect block with the caller's token (default: FIFTY_CREDENTIALS).",
    ),
]

Named = TypeVar("Named")


def open_store() -> StateStore:
    """The state store of the settings.

    Raises:
        NotFound: `fifty init` has not been run.
        Denied: The user may not read it.
    """
    here = settings()
    store = StateStore(here.database, here.host)
    try:
        store.database.require()
    except PermissionError as error:
        raise _forbidden() from error
    if not os.access(here.database, os.R_OK | os.W_OK):
        raise _forbidden()
    return store


def _forbidden() -> Denied:
    return Denied(
        f"this user may not use the state store {settings().database}", hint="run it as root (sudo)"
    )


def require_root(what: str) -> None:
    """Check that this process may change the host.

    Raises:
        Denied: It is not root's.
    """
    if os.geteuid() != 0:
        raise Denied(f"{what} changes this host, which only root may", hint="run it with sudo")


def credentials_name(given: str | None) -> str:
    """The credentials block to use."""
    return given if given is not None else settings().credentials


def the_one(kind: str, name: str, things: Sequence[Named], hint: str) -> Named:
    """The thing with this name or id; an operator sees those of all tenants.

    Args:
        kind: What it is, for messages.
        name: Its name or id.
        things: Those that there are, each with `name` and `id`.
        hint: What to do where there is none.

    Raises:
        NotFound: There is none.
        Conflict: Several tenants have one of that name.
    """
    found = [thing for thing in things if name in (thing.name, thing.id)]  # type: ignore[attr-defined]
    if not found:
        known = ", ".join(sorted({str(thing.name) for thing in things}))  # type: ignore[attr-defined]
        raise NotFound(f"there is no {kind} {name!r}; there are: {known or 'none'}", hint=hint)
    if len(found) > 1:
        raise Conflict(f"several tenants have a {kind} {name!r}", hint="use its id")
    return found[0]
