"""Which of a guest's open connections its port's rules still let pass.

A connection is tracked by its first packet: whoever began it is the source. So it is
judged as that packet would be now, by the rules of the direction that it began in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address

from blocks import changes
from blocks.fabric import connections, namespaces
from blocks.fabric.connections import ICMP, TCP, UDP, Connection
from blocks.resources import FirewallRule, PortBinding

_NUMBERS = {"icmp": ICMP, "tcp": TCP, "udp": UDP}
#: DHCP, which no rule is needed for: from the guest, and to it.
_DHCP = {"egress": (68, 67), "ingress": (67, 68)}


def cut_revoked(zone: int, bindings: Sequence[PortBinding]) -> None:
    """Cut those open connections of ports that their rules do not let pass any more.

    Args:
        zone: The conntrack zone of their network.
        bindings: Ports of one network, with the rules that hold now.
    """
    addresses = {fixed.address for each in bindings for fixed in each.port.addresses}

    def inside() -> set[Connection]:
        wrong = revoked(bindings, connections.tracked(zone, addresses))
        connections.cut(zone, wrong)
        return wrong

    # In a thread of its own: pyroute2 refuses one whose event loop runs.
    wrong = namespaces.run_in(None, inside)
    if wrong:
        changes.record(
            f"Cut {len(wrong)} connections that no rule lets pass any more",
            "\n".join(
                f"conntrack -D -w {zone} --orig-src {source} --orig-dst {to}"
                for source, to in connections.ends(wrong)
            ),
        )


def revoked(bindings: Iterable[PortBinding], tracked: Iterable[Connection]) -> set[Connection]:
    """The connections that a port's rules would not let begin any more.

    Args:
        bindings: Ports of one network, with the rules that hold now.
        tracked: Those of the network's zone.
    """
    by_address = {
        fixed.address: binding for binding in bindings for fixed in binding.port.addresses
    }
    return {
        each
        for each in tracked
        if not (
            _passes(by_address.get(each.source), each, "egress", each.destination)
            and _passes(by_address.get(each.destination), each, "ingress", each.source)
        )
    }


def _passes(
    binding: PortBinding | None, connection: Connection, direction: str, remote: IPv4Address
) -> bool:
    if binding is None or not binding.port.port_security:
        return True
    if connection.protocol == UDP and connection.ports == _DHCP[direction]:
        return True
    return any(
        rule.direction == direction
        and _is_of(rule, connection)
        and (rule.remotes is None or any(remote in each for each in rule.remotes))
        for rule in binding.rules
    )


def _is_of(rule: FirewallRule, connection: Connection) -> bool:
    if rule.protocol is None:
        return True
    if _NUMBERS[rule.protocol] != connection.protocol:
        return False
    if connection.icmp:
        kind, code, _ = connection.icmp
        return rule.port_min in (None, kind) and rule.port_max in (None, code)
    if connection.ports is None or (rule.port_min is None and rule.port_max is None):
        return True
    first = rule.port_min if rule.port_min is not None else 0
    last = rule.port_max if rule.port_max is not None else first
    return first <= connection.ports[1] <= last
