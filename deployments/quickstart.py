"""What `./deployments/quickstart` does once the machine and the environment are ready.

It uses the command line only, as a person would, and looks before each thing whether it
is there already. So it can be stopped anywhere and run again.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from blocks.changes import collecting
from blocks.errors import Conflict, FiftyError
from blocks.settings import settings
from deployments import daemons, kvm_device, units
from deployments.fifty_command import FiftyCommand
from deployments.prefect_server import Server
from deployments.takedown import take_down

IMAGE, NETWORK, ROUTER, OUTSIDE, VM = "micro", "lab", "lab-router", "external", "hello"
_CIDR = "192.168.50.0/24"
_OUTSIDE_CIDR = "172.24.4.0/24"
#: Asks the guest for: its kernel, its name, its addresses, the size of its file system.
_WHO_ARE_YOU = "uname -a; hostname; ip -4 -o addr show; df -h /"

_console = Console(highlight=False, soft_wrap=True)


def _heading(text: str) -> None:
    _console.print(f"\n[bold]{text}[/bold]")


def _make_networks(fifty: FiftyCommand, *, uplink: bool) -> None:
    """A network outside, a tenant's network, and the router between them."""
    networks = fifty.items("network")
    outside = next((item for item in networks if item["name"] == OUTSIDE), None)
    if outside is None:
        leads_to = "uplink" if uplink else "closed"
        fifty.run("network", "create", OUTSIDE, "--cidr", _OUTSIDE_CIDR, "--type", "flat",
                  "--external", "--outside", leads_to)  # fmt: skip
    elif uplink and outside.get("outside") != "uplink":
        raise Conflict(
            f"the network {OUTSIDE} is there already, and does not lead to this host's uplink",
            hint="take everything down first: ./deployments/quickstart --down",
        )
    if NETWORK not in {item["name"] for item in networks}:
        fifty.run("network", "create", NETWORK, "--cidr", _CIDR)
    router = next((item for item in fifty.items("router") if item["name"] == ROUTER), None)
    if router is None:
        fifty.run("router", "create", ROUTER)
    if router is None or not router["gateway"]:
        fifty.run("router", "set-gateway", ROUTER, OUTSIDE)
    if router is None or NETWORK not in {leg["network"] for leg in router["interfaces"]}:
        fifty.run("router", "add-interface", ROUTER, NETWORK)


def _make_vm(fifty: FiftyCommand) -> None:
    """The VM hello, from whatever an earlier quickstart left of it."""
    before = next((vm for vm in fifty.items("vm") if vm["name"] == VM), None)
    match before["status"] if before else None:
        case "ACTIVE":
            _console.print(f"{VM} runs already")
            return
        case "BUILD":
            fifty.show("vm", "resume", VM)
            return
        case "SHUTOFF":
            raise Conflict(
                f"the VM {VM} is there, but does not run",
                hint=f"delete it (`fifty vm delete {VM}`), and run this again",
            )
        case "ERROR" | "NEEDS_ATTENTION" | "DELETING":
            fifty.run("vm", "delete", VM)
    fifty.show("vm", "create", VM, "--image", IMAGE, "--flavor", "tiny", "--network", NETWORK)


def _say_what_next(home: Path, server: Server, fifty: FiftyCommand, began: float) -> None:
    command = fifty.as_typed()
    _heading(f"Done in {time.monotonic() - began:.0f} s. What now?")
    _console.print(
        f"  {server.ui_url}  the Prefect UI, with the run and its fifty steps\n"
        f"  {'':{len(server.ui_url)}}  (from another machine: "
        f"ssh -L {server.port}:127.0.0.1:{server.port} this-host)\n"
        f"  {'':{len(server.ui_url)}}  it asks for FIFTY_PREFECT_AUTH, which is in\n"
        f"  {'':{len(server.ui_url)}}  {home / 'fifty.env'}\n"
        f"  {command} serve --status\n"
        f"  {command} vm steps {VM}\n"
        f"  {command} vm ssh {VM}\n"
        f"  {command} vm create second --image {IMAGE} --flavor tiny --network {NETWORK}\n"
        f"  {command} --help\n"
        f"  {fifty.as_typed('./deployments/quickstart')} --down"
    )


def set_up(home: Path, fifty: FiftyCommand, *, uplink: bool = False) -> None:
    """Bring up everything, or what is missing of it, and log in to the VM hello.

    Args:
        home: FIFTY_HOME.
        fifty: The command line.
        uplink: Whether VMs get out by this host's default route.

    Raises:
        FiftyError: Something was refused or failed; running it again goes on from there.
    """
    began = time.monotonic()
    _heading("Daemons: libvirt, and a Prefect server on 127.0.0.1")
    with collecting() as changes:
        server = daemons.start(home, as_units=units.systemd_runs())
    for change in changes:
        _console.print(change.what, markup=False)
    slow = kvm_device.advice()
    if slow:
        _console.print(f"Advice: {slow}", markup=False)
    _console.print(f"Prefect answers at {server.ui_url}; all files are in {home}")
    fifty.run("init")

    images = {item["name"]: item["status"] for item in fifty.items("image")}
    if images.get(IMAGE) != "active":
        _heading(f"Image {IMAGE}")
        fifty.show("image", "build", IMAGE)

    _heading(f"Networks: {NETWORK}, with DHCP and a router to {OUTSIDE}")
    _make_networks(fifty, uplink=uplink)
    _console.print(f"{NETWORK} {_CIDR}, {OUTSIDE} {_OUTSIDE_CIDR}")

    _heading(f"VM {VM}, in fifty steps")
    _make_vm(fifty)

    _heading(f"Logged in to {VM}; it says:")
    fifty.show("vm", "ssh", VM, "--", _WHO_ARE_YOU)
    _heading("Service: schedules, API triggers, and the UI's Run button")
    with collecting() as changes:
        serving = daemons.start_service(home, as_units=units.systemd_runs())
    for change in changes:
        _console.print(change.what, markup=False)
    _console.print(f"fifty serve runs as process {serving.process.pid}")
    _say_what_next(home, server, fifty, began)


def _told(action: Callable[[], None]) -> int:
    """Run it; tell a failure as one line of what and why, and what to do; the exit code."""
    try:
        action()
    except FiftyError as error:
        print(f"\nquickstart: {error}", file=sys.stderr)
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nquickstart: stopped; run it again to go on, or with --down", file=sys.stderr)
        return 130
    return 0


def main() -> int:
    """The command line behind `./deployments/quickstart`; the exit code."""
    parser = argparse.ArgumentParser(prog="./deployments/quickstart")
    parser.add_argument("--uplink", action="store_true")
    parser.add_argument("--down", action="store_true")
    options = parser.parse_args()
    # The server that is started here is the one to use, whatever the environment says.
    for name in ("FIFTY_PREFECT_API_URL", "FIFTY_PREFECT_AUTH"):
        os.environ.pop(name, None)
    home = settings().home.absolute()
    fifty = FiftyCommand(home)
    if options.down:
        return _told(lambda: take_down(home, fifty, _console.print))
    return _told(lambda: set_up(home, fifty, uplink=options.uplink))


if __name__ == "__main__":
    sys.exit(main())
