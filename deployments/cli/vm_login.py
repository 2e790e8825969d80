"""`fifty vm ssh` and `console`: into a guest, and what it says on its serial console."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path
from typing import Annotated, BinaryIO

from cyclopts import Parameter

from blocks.errors import Conflict, InvalidRequest, NotFound
from blocks.guest import login_command
from blocks.marks import dhcp_namespace
from blocks.resources import Instance
from blocks.settings import settings
from blocks.state import StateStore
from deployments.cli import output
from deployments.cli.context import Credentials, Flag, Json, require_root
from deployments.cli.scope import open_scope
from deployments.defaults import KEY_PAIR
from tasks.policy import check_policy

_LOOK_EVERY_S = 0.2
_CHUNK = 64 * 1024
#: ECMA-48's control sequences, and the shorter ones that consoles send.
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[()][0-9A-B]|[=>78c])")


def ssh(
    name: str,
    /,
    *command: str,
    identity: Annotated[Path | None, Parameter(name=("--identity", "-i"))] = None,
    credentials: Credentials = None,
    json: Json = False,
) -> None:
    """Log in to a VM, from inside its first network.

    Args:
        name: The VM's name or id.
        command: What to run there, after --; nothing means a shell.
        identity: The private key (default: the one of the VM's key pair).
    """
    scope = open_scope(credentials)
    check_policy(scope.caller, "vm:login")
    words = [*_login(scope.store, scope.vm(name), identity), *command]
    if json:
        output.document({"command": words})
        return
    require_root("entering a VM's network")
    sys.stdout.flush()
    try:
        os.execvp(words[0], words)  # noqa: S606 - from here on the terminal is ssh's
    except FileNotFoundError as error:
        raise NotFound(
            f"the program {words[0]} is not installed",
            hint="install what deployments/packages-debian.txt lists",
        ) from error


def _login(store: StateStore, instance: Instance, identity: Path | None) -> list[str]:
    ports = store.ports.of_device(instance.id)
    if not ports or not ports[0].addresses:
        raise Conflict(
            f"the VM {instance.name!r} is {instance.status} and has no address",
            hint=f"`fifty vm steps {instance.name}` shows how far it is",
        )
    if instance.host not in (None, store.host):
        raise Conflict(
            f"the VM {instance.name!r} is on the host {instance.host}", hint="log in on that host"
        )
    private = identity if identity is not None else _private_key(store, instance)
    options = ["-i", str(private)] if private else []
    return login_command(
        dhcp_namespace(ports[0].network_id),
        store.images.get(instance.image_id).login_user,
        ports[0].addresses[0].address,
        settings().instances / instance.id / "known_hosts",
        options,
    )


def _private_key(store: StateStore, instance: Instance) -> str | None:
    """The private half of the VM's key, where it is a file here.

    Raises:
        NotFound: It is not.
    """
    asked = store.builds.get(instance.id).request.get("key") or KEY_PAIR
    pairs = store.keys.list(instance.tenant_id)
    for pair, public, private in pairs:
        same = public.split()[:2] == str(asked).split()[:2]
        if private is not None and (pair == asked or same):
            return private
    hint = f"`fifty vm ssh {instance.name} --identity FILE` names it"
    raise NotFound(f"the private key for {instance.name!r} is not known here", hint=hint)


def console(
    name: str,
    /,
    *,
    follow: Flag = False,
    credentials: Credentials = None,
    json: Json = False,
) -> None:
    """Print what a VM's serial console has said.

    Args:
        name: The VM's name or id; also of a build that was kept or that failed.
        follow: Go on until Ctrl-C, or until the VM is gone.
    """
    if follow and json:
        raise InvalidRequest("--follow has no end, and --json is one document", hint="use one")
    scope = open_scope(credentials)
    check_policy(scope.caller, "vm:console")
    build = scope.build(name)
    log = settings().instances / build.id / "console.log"
    try:
        with log.open("rb") as file:
            if json:
                text = file.read().decode(errors="replace")
                found = {"name": build.name, "path": str(log), "lines": text.splitlines()}
                output.document(found)
                return
            _copy(file)
            while follow and log.exists():
                # As tail -f does where it has no inotify: the log only ever grows.
                time.sleep(_LOOK_EVERY_S)
                _copy(file)
    except FileNotFoundError as error:
        raise NotFound(
            f"the VM {build.name!r} has no console log on this host",
            hint=f"`fifty vm steps {build.name}` shows how far it is",
        ) from error


def _copy(file: BinaryIO) -> None:
    """Copy what is there to standard output; on a terminal without control characters."""
    while chunk := file.read(_CHUNK):
        if sys.stdout.isatty():
            sys.stdout.write(for_terminal(chunk.decode(errors="replace")))
        else:
            sys.stdout.buffer.write(chunk)
    sys.stdout.flush()


def for_terminal(text: str) -> str:
    """A console's text: colours and the like left out, other control characters shown."""
    lines = _SEQUENCE.sub("", text).replace("\r", "").split("\n")
    return "\n".join(output.plain(line.expandtabs()) for line in lines)
