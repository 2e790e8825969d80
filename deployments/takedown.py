"""Taking everything away again: `./deployments/quickstart --down`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from blocks.changes import collecting
from blocks.errors import FiftyError, NeedsAttention
from deployments import daemons, defaults
from deployments.fifty_command import FiftyCommand

#: `fifty audit --fix`: nothing was astray, or something was and is removed.
_AUDIT_CLEAN = (0, 4)


def take_down(home: Path, fifty: FiftyCommand, say: Callable[[str], None]) -> None:
    """Remove every VM, router, network and image, the daemons we started, and `home`.

    A Prefect server that has died is started once more, since deleting is a flow as well.
    The state store and the files go last, and only when nothing is left on the host that
    they would be needed for.

    Args:
        home: FIFTY_HOME.
        fifty: The command line.
        say: Told what was done.

    Raises:
        NeedsAttention: Something could not be removed; the state is kept, so that the
            same can be tried again.
    """
    # First: its schedules go on making and finishing things.
    with collecting() as changes:
        daemons.stop_service(home)
    for change in changes:
        say(change.what)
    left: list[str] = []
    if (home / "state.db").exists():
        left = _remove_resources(home, fifty, say)
    if left:
        raise NeedsAttention(
            "not everything could be taken away",
            hint=f"remove the cause and run this again; what is known is kept in {home}",
            details=left,
        )
    ours = daemons.is_ours(home)
    with collecting() as changes:
        daemons.stop(home)
    for change in changes:
        say(change.what)
    if ours:
        shutil.rmtree(home)
        say(f"Removed {home}")
    say("Debian packages and .venv stay (`rm -r .venv` removes the environment).")


def _remove_resources(home: Path, fifty: FiftyCommand, say: Callable[[str], None]) -> list[str]:
    """Remove all that the state store knows of; what could not be removed, in words."""
    left: list[str] = []

    def succeeds(action: Callable[[], object]) -> bool:
        try:
            action()
        except FiftyError as error:
            left.append(str(error))
            return False
        return True

    def delete(kind: str, *, external: bool | None = None) -> None:
        for item in fifty.items(kind, "--all-tenants"):
            if external is not None and item["external"] != external:
                continue
            # By id: it may be any tenant's.
            if succeeds(partial(fifty.run, kind, "delete", str(item["id"]))):
                say(f"Deleted {kind} {item['name']}")

    succeeds(partial(daemons.start, home))
    # A store that an interrupted `fifty init` left is finished before it is read.
    succeeds(partial(fifty.run, "init"))
    succeeds(partial(fifty.run, "tenant", "enable", defaults.TENANT))
    # Each stands on the ones after it; a tenant's network takes the router's leg with it.
    succeeds(partial(delete, "vm"))
    succeeds(partial(delete, "network", external=False))
    succeeds(partial(delete, "router"))
    succeeds(partial(delete, "network", external=True))
    succeeds(partial(delete, "image"))
    succeeds(partial(fifty.run, "audit", "--fix", ok_codes=_AUDIT_CLEAN))
    return left
