"""What of a network is on this host otherwise than recorded: nothing is changed by the look.

A network's own parts (segment, DHCP, metadata, the outside, routers) are looked at on its
anchor, its guests' ports on the hosts where these run. OpenStack has no such look: there, an
agent's full synchronisation overwrites what it finds.

No module of Prefect is imported here: `fifty network show --check` is quick.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from blocks.errors import NotFound, Transient
from blocks.fabric import NetworkFabric
from blocks.resources import InstanceStatus, Network, PortBinding, PortKind, Router
from blocks.settings import Settings
from blocks.state import Build, StateStore
from tasks.port_bindings import binding_of

#: The chains of a port that name the members of groups (`blocks.fabric.firewall`).
_BY_MEMBERS = ("egress", "ingress")


@dataclass(frozen=True)
class Drift:
    """The differences between a network's record and this host.

    Attributes:
        network: Those of its own parts, in words; None where another host anchors it.
        ports: Those of each guest's port here, by the VM's name and the address.
        under_way: VMs whose ports were passed over, at least their rules: a run is at work on
            them, or on a VM of the tenant's, whose address they may have to let in or forget.
    """

    network: tuple[str, ...] | None
    ports: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    under_way: tuple[str, ...] = ()

    @property
    def lines(self) -> list[str]:
        """Every difference, a line each."""
        of_ports = (f"{port}: {text}" for port, found in self.ports.items() for text in found)
        return [*(self.network or ()), *of_ports]


@dataclass(frozen=True)
class GuestPort:
    """A port on this host whose guest should be running.

    Attributes:
        build: The VM's build, which is complete.
    """

    build: Build
    binding: PortBinding

    @property
    def label(self) -> str:
        """Whose it is, for people."""
        addresses = ", ".join(str(held.address) for held in self.binding.port.addresses)
        return f"{self.build.name} ({addresses or self.binding.port.tap})"


def network_drift(
    network: Network,
    store: StateStore,
    fabric: NetworkFabric,
    settings: Settings,
    runs: Callable[[str], bool] = lambda _instance: True,
) -> Drift:
    """Compare a network with this host.

    Args:
        network: The network.
        store: The state store.
        fabric: This host's networking.
        settings: This host's underlay address.
        runs: Whether an instance's guest runs. Those that do not have no port to look at:
            that they are off is for whoever asks libvirt.
    """
    own = own_differences(network, store, fabric, settings)
    under_way, guests = [], []
    for guest in guest_ports(network, store):
        if store.leases.held(guest.build.id) is not None:
            under_way.append(guest.build.name)
        elif runs(guest.build.id):
            guests.append(guest)
    found: dict[str, tuple[str, ...]] = {}
    astray = _astray(guests, store, fabric)
    changing = _tenants_at_work(store) if astray else set()
    for guest, wrong in astray:
        if settled := _settled(wrong, guest.binding, changing):
            # What all ports share is told once.
            if rest := tuple(text for text in settled if text not in (own or ())):
                found[guest.label] = rest
        else:
            under_way.append(guest.build.name)
    return Drift(tuple(own) if own is not None else None, found, tuple(under_way))


def _astray(
    guests: list[GuestPort], store: StateStore, fabric: NetworkFabric
) -> list[tuple[GuestPort, list[str]]]:
    """The ports of a network that are not as recorded also when nobody changes any rules.

    Between the look at the records and the one at the kernel somebody may have changed both.
    """
    astray = _looked_at(guests, fabric)
    if not astray:
        return []
    with fabric.rules_at_rest():
        again = []
        for guest, _wrong in astray:
            with suppress(NotFound):  # deleted meanwhile
                port = store.ports.get(guest.binding.port.id)
                binding = binding_of(store, port, guest.build.name)
                again.append(GuestPort(guest.build, binding))
        return _looked_at(again, fabric)


def _looked_at(guests: list[GuestPort], fabric: NetworkFabric) -> list[tuple[GuestPort, list[str]]]:
    """Those of a network's ports that have differences, with these."""
    shared = fabric.prove_shared(guests[0].binding.network) if guests else []
    found = []
    for guest in guests:
        own = [*fabric.prove_own(guest.binding), *_without_carrier(guest.binding, fabric)]
        if wrong := list(dict.fromkeys([*shared, *own])):
            found.append((guest, wrong))
    return found


def _settled(wrong: list[str], binding: PortBinding, changing: set[str | None]) -> list[str]:
    """The differences without those that a VM under way accounts for.

    It is a member of its groups from step 23 on, and step 37 tells the other ports; likewise
    with an interface that is plugged in, or out.
    """
    if changing.isdisjoint((binding.port.tenant_id, None)):
        return wrong
    chains = [f"{kind}-{binding.port.id}" for kind in _BY_MEMBERS]
    return [text for text in wrong if not any(chain in text for chain in chains)]


def _tenants_at_work(store: StateStore) -> set[str | None]:
    """Whose VMs are not at an end, or have a run at work on one; None: not known yet."""
    builds = store.builds.unfinished()
    for build_id in store.leases.live():
        with suppress(NotFound):
            builds.append(store.builds.get(build_id))
    return {build.tenant_id for build in builds if build.catalogue == "vm"}


def own_differences(
    network: Network, store: StateStore, fabric: NetworkFabric, settings: Settings
) -> list[str] | None:
    """What of a network's own parts is not as recorded; None where this is not its anchor."""
    if network.anchor_host != store.host:
        return None
    subnets = store.networks.subnets(network.id)
    if not subnets:
        return []
    dhcp_ports = store.ports.list(kind=PortKind.DHCP, network_id=network.id)
    return fabric.missing(
        network,
        subnets[0],
        next(iter(dhcp_ports), None),
        routers_of(network, store),
        store.networks.peers(network.id, store.host),
        settings.underlay_ip,
    )


def routers_of(network: Network, store: StateStore) -> list[Router]:
    """The routers of this host that have a leg, or their gateway, in a network."""
    found = []
    for router in store.routers.list():
        legs = (*router.legs, *((router.gateway,) if router.gateway else ()))
        if router.host == store.host and network.id in {leg.network.id for leg in legs}:
            found.append(router)
    return found


def guest_ports(network: Network, store: StateStore) -> Iterator[GuestPort]:
    """The ports of a network on this host whose VMs are complete and ACTIVE."""
    for port in store.ports.list(kind=PortKind.COMPUTE, network_id=network.id):
        if port.host != store.host or port.device_id is None:
            continue
        try:
            build = store.builds.get(port.device_id)
            instance = store.instances.get(port.device_id)
            binding = binding_of(store, port, instance.name)
        except NotFound:
            continue  # deleted since it was listed, or nobody's: the audit's matter
        if build.state == "complete" and instance.status is InstanceStatus.ACTIVE:
            yield GuestPort(build, binding)


def port_differences(binding: PortBinding, fabric: NetworkFabric) -> list[str]:
    """What of a running guest's port is not as recorded; QEMU must hold its tap, too."""
    return [*fabric.prove(binding), *_without_carrier(binding, fabric)]


def _without_carrier(binding: PortBinding, fabric: NetworkFabric) -> list[str]:
    try:
        if fabric.carrier(binding.port):
            return []
    except Transient:
        return []  # that the tap is not there is told already
    return [f"no QEMU holds {binding.port.tap}: the guest is cut off, or off"]
