"""The network on this host: segments, DHCP, routers, metadata, ports and their firewall."""

from blocks.fabric.dhcp_leases import DhcpLease
from blocks.fabric.namespaces import run_in
from blocks.fabric.network_fabric import NetworkFabric

__all__ = ["DhcpLease", "NetworkFabric", "run_in"]
