"""The leases that guests have taken, as dnsmasq keeps them in its file."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from blocks.fabric import files


class DhcpLease(BaseModel):
    """A lease that a guest has taken.

    Attributes:
        expires_at: None for one without an end.
        host_name: What the guest is called in DNS, where it has a name.
    """

    model_config = ConfigDict(frozen=True)

    address: IPv4Address
    mac: str
    expires_at: datetime | None
    host_name: str | None


def find_lease(file: Path, mac: str | None, address: IPv4Address) -> DhcpLease | None:
    """The lease of an address, if it is this MAC address that has it.

    Args:
        file: dnsmasq's `dhcp-leasefile`: expiry, MAC address, address, name, client id.
        mac: Whose it must be; None is nobody's.
        address: The leased address.
    """
    if not file.exists():
        return None
    for line in file.read_text(errors="replace").splitlines():
        words = line.split()
        if len(words) >= 4 and words[1] == mac and words[2] == str(address):
            expires = int(words[0])
            return DhcpLease(
                address=address,
                mac=words[1],
                expires_at=datetime.fromtimestamp(expires, UTC) if expires else None,
                host_name=None if words[3] == "*" else words[3],
            )
    return None


def drop_lease(file: Path, lease: DhcpLease) -> None:
    """Strike a lease from the file of a dnsmasq that does not run; no file is fine."""
    if not file.exists():
        return
    kept = [
        line
        for line in file.read_text(errors="replace").splitlines(keepends=True)
        if line.split()[1:3] != [lease.mac, str(lease.address)]
    ]
    files.write(file, "".join(kept).encode())
