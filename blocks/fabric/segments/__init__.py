"""Segments: a network's bridge on this host, and what carries its frames to the others.

Ports are in a Linux bridge, whatever the network's type and driver (Neutron's hybrid
plugging): so DHCP, routers and the firewall are the same for all of them. A driver only
makes what leads from that bridge to other hosts.
"""

from blocks.fabric.segments import vswitch_inventory
from blocks.fabric.segments.bridge import Segments
from blocks.fabric.segments.carrier import Carrier, Ends, Lack
from blocks.fabric.segments.driver import SegmentDriver
from blocks.fabric.segments.linuxbridge import VXLAN_PORT
from blocks.fabric.segments.underlay import segment_mtu
from blocks.fabric.segments.vswitch import Vswitch

__all__ = [
    "VXLAN_PORT",
    "Carrier",
    "Ends",
    "Lack",
    "SegmentDriver",
    "Segments",
    "Vswitch",
    "segment_mtu",
    "vswitch_inventory",
]
