"""What a network has in Open vSwitch, as it is and as it is to be, and the way between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from blocks import marks
from blocks.errors import Conflict
from blocks.fabric.segments.vswitch import Query, Row, Vswitch, quoted


@dataclass(frozen=True)
class Mark:
    """Our mark in `external_ids`: the site, and the network."""

    site: str
    owner: str

    @property
    def words(self) -> tuple[str, str]:
        """As ovs-vsctl's `set` and `find` take it."""
        return (
            f"external_ids:{marks.VSWITCH_SITE}={quoted(self.site)}",
            f"external_ids:{marks.VSWITCH_OWNER}={quoted(self.owner)}",
        )

    def require_on(self, bridge: Row) -> None:
        """Refuse a bridge that carries another mark, or none.

        Raises:
            Conflict: It is somebody else's.
        """
        ids = bridge["external_ids"]
        if (ids.get(marks.VSWITCH_SITE), ids.get(marks.VSWITCH_OWNER)) != (self.site, self.owner):
            name = bridge["name"]
            raise Conflict(
                f"the Open vSwitch bridge {name} is not ours: its external_ids are {ids}",
                hint=f"find out whose it is; `ovs-vsctl del-br {name}` removes it",
            )


@dataclass(frozen=True)
class WantedPort:
    """A port as it is to be.

    Attributes:
        kind: `gre` or `vxlan` for a tunnel; empty for the end of a veth pair.
        options: A tunnel's key and ends.
        tag: The VLAN of an access port.
    """

    name: str
    kind: str = ""
    options: dict[str, str] = field(default_factory=dict)
    tag: int | None = None

    @property
    def protected(self) -> bool:
        """Whether it hands on nothing to other protected ports: tunnels do not."""
        return bool(self.kind)


@dataclass(frozen=True)
class WantedSwitch:
    """The bridge that the ports are to be in.

    Attributes:
        datapath: `system` or `netdev`.
        ours: Whether it is the network's own, and not the operator's.
    """

    name: str
    datapath: str
    ours: bool


@dataclass(frozen=True)
class Step:
    """One difference: in words, what ends it in words, and by which commands."""

    wrong: str
    what: str
    commands: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Seen:
    """What of a network is in Open vSwitch."""

    bridge: Row | None
    ports: dict[str, Row]
    interfaces: dict[str, Row]

    @classmethod
    def of(cls, vswitch: Vswitch, bridge: str, mark: Mark) -> Seen:
        """Look at a bridge, and at all ports with a mark wherever they are."""
        bridges, ports, interfaces = vswitch.ask(
            Query(
                "Bridge",
                ("name", "datapath_type", "external_ids", "ports"),
                (f"name={quoted(bridge)}",),
            ),
            Query("Port", ("_uuid", "name", "tag", "protected"), mark.words),
            Query("Interface", ("name", "type", "options", "error"), mark.words),
        )
        return cls(
            bridge=bridges[0] if bridges else None,
            ports={row["name"]: row for row in ports},
            interfaces={row["name"]: row for row in interfaces},
        )

    @property
    def faults(self) -> dict[str, str]:
        """The ports that Open vSwitch cannot do, and why."""
        return {name: row["error"] for name, row in self.interfaces.items() if row["error"]}

    def works(self, port: str) -> bool:
        """Whether a port is there, in the bridge that was looked at, and without fault."""
        if self.bridge is None or port not in self.ports or port in self.faults:
            return False
        ports = self.bridge["ports"]
        # A set of one is written as that one (RFC 7047, section 5.1).
        return self.ports[port]["_uuid"] in (ports if isinstance(ports, list) else [ports])


def steps(
    switch: WantedSwitch,
    ports: Sequence[WantedPort],
    mark: Mark,
    seen: Seen,
    *,
    tunnels: bool = True,
) -> list[Step]:
    """What makes of what is seen what is wanted; nothing, if it is that.

    Args:
        switch: The bridge.
        ports: The ports that are to be in it.
        mark: Whose they are.
        seen: What there is.
        tunnels: Whether tunnels that are not wanted are too many.

    Raises:
        Conflict: The bridge that should be ours is somebody else's.
    """
    found: list[Step] = []
    if switch.ours and seen.bridge is not None:
        mark.require_on(seen.bridge)
    elif switch.ours:
        settings = (f"datapath_type={switch.datapath}", "fail_mode=standalone", *mark.words)
        found.append(
            Step(
                f"Open vSwitch has no bridge {switch.name}",
                f"Made the Open vSwitch bridge {switch.name}",
                (("add-br", switch.name), ("set", "Bridge", switch.name, *settings)),
            )
        )
    if tunnels:
        found += _too_many(ports, seen)
    for port in ports:
        found += _port_steps(port, switch.name, mark, seen)
    return found


def _too_many(ports: Sequence[WantedPort], seen: Seen) -> Iterator[Step]:
    for name in sorted(set(seen.ports) - {port.name for port in ports}):
        yield Step(
            f"the port {name} leads to no host of the network",
            f"Removed the port {name} from Open vSwitch",
            (("del-port", name),),
        )


def _port_steps(port: WantedPort, bridge: str, mark: Mark, seen: Seen) -> Iterator[Step]:
    """What makes one port what it is to be."""
    tag = "tag=[]" if port.tag is None else f"tag={port.tag}"
    options = ",".join(f"{key}={quoted(value)}" for key, value in sorted(port.options.items()))
    of_interface = (f"type={quoted(port.kind)}", f"options={{{options}}}")
    settings = (
        ("set", "Port", port.name, tag, f"protected={str(port.protected).lower()}", *mark.words),
        ("set", "Interface", port.name, *of_interface, *mark.words),
    )
    if not seen.works(port.name):
        old = (("del-port", port.name),) if port.name in seen.ports else ()
        fault = seen.faults.get(port.name)
        yield Step(
            f"the port {port.name} of Open vSwitch is at fault: {fault}"
            if fault
            else f"the bridge {bridge} of Open vSwitch has no port {port.name}",
            f"Added the port {port.name} to the Open vSwitch bridge {bridge}",
            (*old, ("add-port", bridge, port.name), *settings),
        )
        return
    row, interface = seen.ports[port.name], seen.interfaces[port.name]
    there = (row["tag"], row["protected"], interface["type"], interface["options"])
    wanted: tuple[object, ...] = (
        [] if port.tag is None else port.tag,
        port.protected,
        port.kind,
        port.options,
    )
    if there != wanted:
        yield Step(
            f"the port {port.name} of Open vSwitch has tag, protection, type and options "
            f"{there}, not {wanted}",
            f"Set the port {port.name} of Open vSwitch",
            settings,
        )
