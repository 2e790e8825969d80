"""The seed's network, made of its file, in a tenant of its own; and what reaches its guests."""

from __future__ import annotations

import socket
import subprocess
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from blocks.fabric import run_in
from blocks.guest import login_command
from blocks.marks import outside_namespace
from blocks.resources import Network
from deployments.defaults import KEY_PAIR
from tests.cloud import Cloud

FILE = Path(__file__).parents[2] / "deployments" / "examples" / "seed-network.yaml"
TENANT = "seed"
NETWORK, ROUTER, PUBLIC = "openstack-Net", "openstack-router", "public"
#: The gateway of the external network: somebody outside.
OUTSIDE = "172.24.1.1"
_ECHO = 7777
#: Long enough for a retransmission; what does not come within it is taken not to come.
SILENCE_S = 4.0
_PATIENCE_S = 30.0
#: Both ping(8), of iputils and of BusyBox, have these options.
_TWICE = ("-c", "2", "-i", "0.2", "-W", "3")


class SeedNetwork:
    """The tenant `seed`, an admin of which makes the seed's network and VMs in it.

    Args:
        cloud: The site.
        folder: For a file.
    """

    def __init__(self, cloud: Cloud, folder: Path) -> None:
        self.cloud = cloud
        cloud.fifty("tenant", "create", TENANT)
        cloud.fifty("tenant", "token", TENANT, "--role", "admin", "--save", TENANT)
        store = cloud.world.store
        self._key = folder / "default.pub"
        self._key.write_text(store.keys.get(store.tenants.id_of("default"), KEY_PAIR)[0] + "\n")
        self.before = cloud.inventory()

    def fifty(self, *words: str, code: int = 0) -> str:
        """Run `fifty` for the tenant."""
        return self.cloud.fifty(*words, "--credentials", TENANT, code=code)

    def json(self, *words: str, code: int = 0) -> Any:  # noqa: ANN401 - any JSON
        """Run `fifty ... --json` for the tenant and give back the document."""
        return self.cloud.json(*words, "--credentials", TENANT, code=code)

    def refused(self, *words: str) -> str:
        """Run what has to be refused; what is said, with the details."""
        document = self.json(*words, code=1)
        return " ".join([document["message"], *document["details"]])

    def create_vm(self, name: str, *options: str) -> None:
        """Create a VM in the seed's network, that one can log in to as in the others."""
        self.fifty(
            *("vm", "create", name, "--image", "micro", "--flavor", "tiny"),
            *("--network", NETWORK, "--key", str(self._key), *options),
        )

    def remove(self) -> None:
        """Remove what is there of it."""
        tenant = self.cloud.world.store.tenants.id_of(TENANT)
        self.cloud.delete(
            vm.id for vm in self.cloud.world.store.instances.list() if vm.tenant_id == tenant
        )
        # Their own went with them.
        for floating in self.json("floating-ip", "list"):
            self.fifty("floating-ip", "delete", floating["address"])
        for kind, name in (("network", NETWORK), ("router", ROUTER), ("network", PUBLIC)):
            ours = [thing for thing in self.json(kind, "list") if thing["tenant_id"] == tenant]
            if name in {thing["name"] for thing in ours}:
                self.fifty(kind, "delete", name)

    @property
    def public(self) -> Network:
        """The seed's external network."""
        store = self.cloud.world.store
        return store.networks.find(store.tenants.id_of(TENANT), PUBLIC)

    @property
    def outside(self) -> str:
        """The namespace of somebody outside."""
        return outside_namespace(self.public.id)

    def address(self, name: str) -> str:
        """A VM's first fixed address."""
        return str(self.cloud.ports(name)[0].addresses[0].address)

    def answers(self, address: str) -> bool:
        """Whether an address answers somebody outside who pings it."""
        done = subprocess.run(
            ["ip", "netns", "exec", self.outside, "ping", *_TWICE, address],
            capture_output=True,
            text=True,
            check=False,
        )
        return " 0% packet loss" in done.stdout

    def pings(self, source: str, target: str, *options: str) -> bool:
        """Whether an address answers a VM that pings it."""
        said = self.cloud.ssh(source, f"ping {' '.join((*_TWICE, *options))} {target} || true")
        return ", 0% packet loss" in said

    def who(self, address: str) -> str:
        """Which host says its name to somebody outside who logs in there; empty if none."""
        command = login_command(
            self.outside,
            "root",
            IPv4Address(address),
            Path("/dev/null"),
            [
                *("-i", str(self.cloud.home / "keys" / KEY_PAIR)),
                *("-o", "BatchMode=yes", "-o", f"ConnectTimeout={SILENCE_S:g}"),
            ],
        )
        done = subprocess.run(
            [*command, "hostname"],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        return done.stdout.strip()

    def forget_rules(self) -> None:
        """Remove what was added to the default group."""
        for rule in self.json("security-group", "show", "default")["rules"]:
            if rule["direction"] == "ingress" and not rule["remote_group"]:
                self.fifty("security-group", "remove-rule", "default", rule["id"])

    def serve_echo(self, name: str) -> None:
        """Have a VM answer on a port with what is said to it."""
        self.cloud.ssh(name, f"nc -ll -p {_ECHO} -e cat >/dev/null 2>&1 </dev/null &")

    def talk(self, address: str, patience_s: float = _PATIENCE_S) -> socket.socket:
        """A connection from somebody outside to a VM that serves echo."""
        end = (address, _ECHO)
        return run_in(self.outside, lambda: socket.create_connection(end, patience_s))


def goes_on(talk: socket.socket, patience_s: float = _PATIENCE_S) -> bool:
    """Whether what is said comes back."""
    talk.settimeout(patience_s)
    try:
        talk.sendall(b"word")
        return talk.recv(4) == b"word"
    except OSError:
        return False


def has_ended(talk: socket.socket) -> bool:
    """Whether nothing comes back any more."""
    return not goes_on(talk, SILENCE_S)
