"""What commands share: options, the state store, and who may run what."""

from __future__ import annotations

import os
from typing import Annotated, Any

from cyclopts import Parameter

from blocks.errors import Denied
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
AllTenants = Annotated[
    bool,
    Parameter(
        name="--all-tenants",
        negative="",
        show_default=False,
        help="Those of all tenants; for admins only.",
    ),
]


def open_store() -> StateStore:
    """The state store of the settings.

    Raises:
        NotFound: `fifty init` has not been run.
        Denied: The user may not read it.
        Conflict: It is of another version of Fifty Steps.
    """
    here = settings()
    store = StateStore(here.database, here.host)
    try:
        store.database.require()
    except PermissionError as error:
        raise _forbidden() from error
    if not os.access(here.database, os.R_OK | os.W_OK):
        raise _forbidden()
    store.database.require_current()
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


def request_of(
    credentials: str | None,
    **fields: Any,  # noqa: ANN401 - as the request's are
) -> dict[str, Any]:
    """A flow's request: what of it was given, and whose it is; None is what was not given."""
    given = {field: value for field, value in fields.items() if value is not None}
    return {**given, "credentials": credentials_name(credentials)}


def credentials_name(given: str | None) -> str:
    """The credentials block to use."""
    return given if given is not None else settings().credentials
