"""SSH to a guest from its network's namespace: the host has no address on the bridge."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path
from tempfile import NamedTemporaryFile

from blocks.commands import run
from blocks.errors import GuestFault, Transient
from blocks.fabric import run_in

PORT = 22
_BANNER_LIMIT = 255


class HostKeyChanged(GuestFault):
    """The guest answers with another host key than before."""

    default_hint = "somebody else answers at this address, or the guest made new keys"


def banner(namespace: str, address: IPv4Address, timeout_s: float) -> str | None:
    """The first line that the guest's SSH server says (RFC 4253, section 4.2).

    Args:
        namespace: The network namespace to ask from.
        address: The guest's.
        timeout_s: For the connection, and for the line.

    Returns:
        None where nothing answers yet, or something that is not SSH.
    """

    def ask() -> str | None:
        try:
            with socket.create_connection((str(address), PORT), timeout=timeout_s) as connection:
                line = connection.makefile("rb").readline(_BANNER_LIMIT)
        except OSError:
            return None
        return line.decode(errors="replace").strip() if line.startswith(b"SSH-") else None

    return run_in(namespace, ask)


def login_command(
    namespace: str,
    user: str,
    address: IPv4Address,
    known_hosts: Path,
    options: Sequence[str] = (),
) -> list[str]:
    """The command line that logs in to a guest from a namespace.

    The guest's host key is taken on first contact and insisted on from then on.
    """
    return [
        "nsenter",
        f"--net=/run/netns/{namespace}",
        "ssh",
        "-F",
        "none",
        "-o",
        f"UserKnownHostsFile={known_hosts}",
        "-o",
        "GlobalKnownHostsFile=none",
        "-o",
        "StrictHostKeyChecking=accept-new",
        "-o",
        "IdentitiesOnly=yes",
        "-o",
        "LogLevel=ERROR",
        *options,
        f"{user}@{address}",
    ]


def accepts_key(
    namespace: str,
    user: str,
    address: IPv4Address,
    public_key: str,
    known_hosts: Path,
    timeout_s: float,
) -> bool:
    """Whether the guest would let the owner of a public key in.

    RFC 4252, section 7: a client may ask whether a key would be acceptable before it signs
    anything. So the caller's key is proven without having the caller's private key.

    Raises:
        HostKeyChanged: The guest's host key is not the one of before.
    """
    with NamedTemporaryFile("w", suffix=".pub") as file:
        file.write(public_key + "\n")
        file.flush()
        options = ["-v", "-i", file.name, "-o", "LogLevel=DEBUG1", "-o", "BatchMode=yes"]
        options += ["-o", "PreferredAuthentications=publickey"]
        options += ["-o", f"ConnectTimeout={max(1, int(timeout_s))}"]
        words = login_command(namespace, user, address, known_hosts, options)
        try:
            asked = run(*words, "true", timeout_s=timeout_s + 30, ok_codes=range(256))
        except Transient:
            # It answered once, and fell silent: whether it still runs is the caller's to see.
            return False
    if "HOST IDENTIFICATION HAS CHANGED" in asked.stderr:
        raise HostKeyChanged(f"the SSH host key of {address} has changed")
    return "Server accepts key" in asked.stderr
