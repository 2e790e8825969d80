"""The commands' tree, and what becomes of their errors: never a traceback."""

from __future__ import annotations

import importlib.metadata
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from keyword import iskeyword
from pathlib import Path
from typing import Any

from cyclopts import App, CycloptsError, Group

from blocks.errors import FiftyError
from blocks.settings import DEFAULT_HOME
from deployments.cli import output
from deployments.cli.help_pages import HelpPages

REFUSED = 1
WRONG_USAGE = 2

_SITE = Group("This site", sort_key=1)
_THINGS = Group("Things", sort_key=2)

#: Each command with its module and a line of help: what a list of commands shows must not
#: need the modules' import.
_TREE: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "": {
        "init": ("site", "Make what must be there before the first VM."),
        "steps": ("site", "Tell the catalogue of the fifty steps."),
        "serve": ("serve", "Run what the Prefect server asks for, on this host."),
        "audit": ("audit", "Find, and remove, what is astray on this host."),
        "env": ("environment", "Print what curl and prefect need, for a shell."),
        "reconcile": ("reconcile", "Bring to an end what stopped, and back what is lost."),
        "stats": ("stats", "Tell how long the steps of the last builds took."),
    },
    "vm": {
        "create": ("vm_create", "Create a VM, and draw its fifty steps."),
        "list": ("vm_views", "List the VMs."),
        "show": ("vm_views", "Show a VM."),
        "steps": ("vm_views", "Show how far each of its fifty steps is."),
        "ssh": ("vm_login", "Log in to it."),
        "console": ("vm_login", "Print what its serial console has said."),
        "delete": ("vm_runs", "Delete VMs."),
        "start": ("vm_runs", "Start one that is off."),
        "attach-interface": ("vm_interfaces", "Plug it into a network more."),
        "detach-interface": ("vm_interfaces", "Unplug it from a network."),
        "set-interface": ("vm_interfaces", "Set groups and port security of its port."),
        "attach-volume": ("vm_volumes", "Plug a volume into it, also a new one."),
        "detach-volume": ("vm_volumes", "Unplug a volume from it."),
        "resume": ("vm_runs", "Go on with its build where it stopped."),
        "rollback": ("vm_runs", "Undo a build that did not get to its end."),
    },
    "vm snapshot": {
        "create": (
            "vm_snapshots",
            "Snapshot its root disk; volumes and encrypted disks have none.",
        ),
        "list": ("vm_snapshots", "List a VM's snapshots."),
        "revert": ("vm_snapshots", "Bring it back to a snapshot."),
        "delete": ("vm_snapshots", "Delete a snapshot; what was written since stays."),
    },
    "network": {
        "create": ("network_create", "Make a network with one subnet."),
        "list": ("networks", "List the networks."),
        "show": ("networks", "Show a network."),
        "delete": ("networks", "Delete a network in which there is no VM any more."),
    },
    "router": {
        "create": ("routers", "Make a router without any interface."),
        "list": ("routers", "List the routers."),
        "show": ("routers", "Show a router."),
        "add-interface": ("routers", "Put it into a network."),
        "remove-interface": ("routers", "Take it out of a network."),
        "set-gateway": ("routers", "Connect it to the outside."),
        "clear-gateway": ("routers", "Cut it off from the outside."),
        "set-routes": ("routers", "Set its static routes."),
        "delete": ("routers", "Delete a router."),
    },
    "floating-ip": {
        "create": ("floating_ips", "Take an address of an external network."),
        "list": ("floating_ips", "List the floating IPs."),
        "attach": ("floating_ips", "Let it lead to a VM."),
        "detach": ("floating_ips", "Let it lead nowhere."),
        "delete": ("floating_ips", "Give it back."),
    },
    "security-group": {
        "create": ("security_groups", "Make a group that lets nothing in."),
        "list": ("security_groups", "List the security groups."),
        "show": ("security_groups", "Show a group with its rules."),
        "add-rule": ("security_groups", "Let something pass, at once."),
        "remove-rule": ("security_groups", "Let something pass no more, at once."),
        "delete": ("security_groups", "Delete a group in which there is no VM."),
    },
    "image": {
        "build": ("images", "Build an image by a recipe."),
        "recipes": ("image_recipes", "List the recipes that images can be built by."),
        "import": ("image_import", "Import an image from a file or a URL."),
        "install": ("image_install", "Install an image from an installer's medium."),
        "edit": ("image_files", "Make an image from another one by changing files in it."),
        "check": (
            "image_files",
            "Check an image's files without booting it.\n\n"
            "Exits 0 where no point failed, 3 where one did; the report is kept with the image.",
        ),
        "capture": ("image_trials", "Make an image of a VM, running or off."),
        "certify": (
            "image_trials",
            "Boot an image, and test it from inside and outside.\n\n"
            "Exits 0 where it passed, 3 where it did not; the certificate is kept with the image.",
        ),
        "list": ("images", "List the images."),
        "show": ("images", "Show an image: what it is, and what was made from it."),
        "set": ("image_catalogue", "Set what is said of an image."),
        "deactivate": ("image_catalogue", "Let no new VM be made from an image."),
        "activate": ("image_catalogue", "Let new VMs be made from it again."),
        "save": (
            "image_save",
            "Save an image as a file: as it is, or as raw or qcow2.\n\n"
            "For admins only. The file is there whole or not at all; an encrypted image stays so.",
        ),
        "share": ("image_catalogue", "Let one more tenant use an image."),
        "unshare": ("image_catalogue", "Let a tenant use it no more."),
        "delete": ("images", "Delete an image that no VM was made from."),
    },
    "flavor": {
        "create": ("flavors", "Make a flavor; for admins only."),
        "list": ("flavors", "List the flavors."),
        "show": ("flavors", "Show a flavor."),
        "delete": ("flavors", "Delete a flavor; VMs keep theirs. For admins only."),
    },
    "tenant": {
        "create": ("tenants", "Make a tenant."),
        "list": ("tenants", "List the tenants."),
        "show": ("tenants", "Show a tenant with its tokens and its quota."),
        "disable": ("tenants", "Refuse its requests from now on."),
        "enable": ("tenants", "Let its requests in again."),
        "token": ("tenants", "Make a token for it, which is shown once."),
        "revoke": ("tenants", "Make a token stand for nobody."),
        "certificates": ("tenants", "Let it use certified images only, or all."),
        "quota": ("tenants", "Show or set how much it may hold."),
    },
    "key": {
        "create": ("keys", "Record a key pair, or make one."),
        "list": ("keys", "List the key pairs."),
    },
}
_HELP = {
    "": "Virtual machines in the fifty steps that OpenStack takes.",
    "vm": "Virtual machines.",
    "vm snapshot": "Snapshots of VMs.",
    "network": "Networks.",
    "router": "Routers.",
    "floating-ip": "Addresses outside that lead to VMs.",
    "security-group": "Security groups: what may pass to and from VMs.",
    "image": "Images.",
    "flavor": "Flavors: the sizes that VMs come in.",
    "tenant": "Tenants, their tokens and their quota.",
    "key": "Key pairs for logging in to VMs.",
}


def application() -> App:
    """The tree of commands. A command's module is imported when the command is used."""
    root = _app("")
    apps = {"": root}
    root.version = lambda: importlib.metadata.version("fifty-steps")
    root.version_flags = ["--version"]
    for name, commands in _TREE.items():
        app = apps[name] = _app(name) if name else root
        for command, (module, text) in commands.items():
            function = f"{command}_" if iskeyword(command) else command.replace("-", "_")
            path = f"deployments.cli.{module}:{function}"
            options: dict[str, Any] = {"group": _SITE} if app is root else {}
            app.command(path, name=command, help=text, **options)
        if app is not root:
            parent = apps[name.rpartition(" ")[0]]
            app.group = (_THINGS,) if parent is root else ()
            parent.command(app)
    return root


def _app(name: str) -> App:
    return App(
        name=name.rpartition(" ")[2] or "fifty",
        help=_HELP[name],
        version_flags=[],
        help_format="plaintext",
        help_formatter=HelpPages(),
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )


def run(arguments: Sequence[str]) -> int:
    """Run one command line.

    Args:
        arguments: The words after `fifty`.

    Returns:
        The process's exit code.
    """
    output.prepare_streams()
    as_json = "--json" in _options(arguments)
    try:
        try:
            code = _dispatch(arguments)
        except Exception as error:
            if isinstance(error, BrokenPipeError):
                raise
            code, document = _explained(error)
            output.refuse(document, as_json=as_json)
        except KeyboardInterrupt:
            code = output.INTERRUPTED
            output.refuse(_refusal("Interrupted", "stopped by Ctrl-C"), as_json=as_json)
        except output.Terminated:
            code = output.TERMINATED
            hint = "`fifty reconcile` brings what was begun to its end"
            output.refuse(_refusal("Terminated", "stopped by SIGTERM", hint), as_json=as_json)
        sys.stdout.flush()
    except BrokenPipeError:
        # Who read our output has gone (`| head`): nothing is left to say, nor to flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return REFUSED
    return code


def _explained(error: Exception) -> tuple[int, Mapping[str, Any]]:
    """The exit code for an error, and what is told about it."""
    if isinstance(error, CycloptsError):
        hint = "`fifty --help`, or --help after the command, tells the right usage"
        return WRONG_USAGE, _refusal("WrongUsage", str(error).rstrip("."), hint)
    if isinstance(error, output.Refusal):
        return error.exit_code, error.document
    if isinstance(error, FiftyError):
        return REFUSED, error.as_dict()
    return REFUSED, _unexpected(error)


def _refusal(kind: str, message: str, hint: str = "") -> dict[str, Any]:
    return {"error": kind, "message": message, "hint": hint, "details": []}


def _dispatch(arguments: Sequence[str]) -> int:
    for word in arguments:
        if not word.isascii() and _not_utf8(word):
            document = _refusal("WrongUsage", f"{word!r} is not UTF-8", "write it in UTF-8")
            raise output.Refusal(document, WRONG_USAGE)
    result = application()(arguments, exit_on_error=False, print_error=False)
    return result if isinstance(result, int) else 0


def _not_utf8(word: str) -> bool:
    """Whether an argument's bytes were no UTF-8: Python then keeps them as surrogates."""
    return any("\ud800" <= character <= "\udfff" for character in word)


def _options(arguments: Sequence[str]) -> Sequence[str]:
    """The words before a `--`."""
    words = list(arguments)
    return words[: words.index("--")] if "--" in words else words


def _unexpected(error: Exception) -> dict[str, Any]:
    """A mistake of ours, or of a part below: one line here, the traceback in the log."""
    log = Path(os.environ.get("FIFTY_HOME", DEFAULT_HOME)) / "logs" / "fifty.log"
    text = "".join(traceback.format_exception(error))
    try:
        log.parent.mkdir(mode=0o700, exist_ok=True)
        with log.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{datetime.now(UTC).isoformat()} {sys.argv!r}\n{text}\n")
        hint = f"this is a mistake of Fifty Steps; the traceback is in {log}"
    except OSError as unwritable:
        hint = f"the traceback could not be written to {log}: {unwritable.strerror}"
    return _refusal(type(error).__name__, f"{type(error).__name__}: {error}", hint)
