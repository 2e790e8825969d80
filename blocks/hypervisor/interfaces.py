"""Network interfaces plugged into, and unplugged from, a guest that is there already."""

from __future__ import annotations

from lxml import etree

from blocks.hypervisor.domain_xml import compose_interface
from blocks.hypervisor.guest import InterfaceSpec
from blocks.hypervisor.hotplug import Device, Devices, identity_of


class Interfaces(Devices):
    """The interfaces of this site's domains."""

    def attach_interface(self, instance_id: str, interface: InterfaceSpec) -> None:
        """Plug an interface into a guest; there already as specified is fine.

        Args:
            instance_id: Whose. Where it does not run, the definition alone is changed.
            interface: Its tap must be there.

        Raises:
            HostFault: There is no such domain.
            Conflict: The guest has no free PCIe root port any more, or has an interface
                of this alias that is another one.
        """
        self.attach_device(instance_id, _device(interface))

    def detach_interface(
        self, instance_id: str, interface: InterfaceSpec, timeout_s: float = 60.0
    ) -> None:
        """Unplug an interface from a guest, and wait until it is gone; already gone is fine.

        Raises:
            Transient: The guest has not let go of it in time.
        """
        self.detach_device(instance_id, _device(interface), timeout_s)

    def interfaces(self, instance_id: str) -> dict[str, str]:
        """The taps of a guest's interfaces, as it is now, by their MAC addresses; in order.

        Empty where there is no such domain.
        """
        xml = self.definition(instance_id)
        if xml is None:
            return {}
        found = etree.fromstring(xml).findall("devices/interface")
        return dict(identity_of(element) for element in found)


def _device(interface: InterfaceSpec) -> Device:
    return Device(
        kind="interface",
        name=interface.tap,
        alias=interface.alias,
        identity=(interface.mac, interface.tap),
        xml=compose_interface(interface),
        unplug=("detach-interface", "--type", "ethernet", "--mac", interface.mac),
    )
