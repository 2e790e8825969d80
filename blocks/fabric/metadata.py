"""Metadata on 169.254.169.254: what each guest is told about itself.

One small process a network (`metadata_server`) in its DHCP namespace, where the address
is. Guests come by the route that DHCP gives them (option 121), or by their router, which
sends them there. The documents lie in files, so that a guest is added and forgotten
without the process being told.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from blocks import changes, commands, marks
from blocks.errors import InvalidRequest
from blocks.fabric import files, metadata_server, namespaces
from blocks.fabric.processes import Server
from blocks.fabric.site import Site
from blocks.resources import Network, Port, PortBinding

#: Beside the documents: the port that they are for. It is not among those that are served.
OWNER = "port"
_CONNECT_TIMEOUT_S = 2.0


class Metadata:
    """The metadata servers of a site, and their documents."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def serve(self, network: Network) -> None:
        """Run the network's metadata server in its DHCP namespace.

        Raises:
            HostFault: There is no such namespace, or the address is not there.
        """
        with self._site.locked(network.id):
            self._documents(network.id)
            server = self.server(network.id)
            namespace = marks.dhcp_namespace(network.id)
            # Isolated (-I) and without site-packages (-S): 15 ms until it listens.
            script = metadata_server.__file__
            words = [sys.executable, "-I", "-S", script, server.token, str(server.pid_file)]
            if server.ensure(lambda: namespaces.run_in(namespace, lambda: commands.run(*words))):
                changes.record(
                    f"Started the metadata server in {namespace}",
                    ["ip", "netns", "exec", namespace, *words],
                )

    def stop(self, network: Network) -> None:
        """Stop the network's metadata server, remove all documents; already gone is fine."""
        with self._site.locked(network.id):
            server = self.server(network.id)
            if server.stop():
                namespace = marks.dhcp_namespace(network.id)
                pid_file = server.pid_file
                changes.record(
                    f"Stopped the metadata server in {namespace}", f"kill $(cat {pid_file})"
                )
            files.remove_tree(self._site.of_network(network.id) / "metadata")
            files.remove_if_empty(self._site.of_network(network.id))

    def put(self, binding: PortBinding, documents: Mapping[str, bytes]) -> None:
        """Write what a port's guest is told; exactly these documents, no others.

        Args:
            binding: The port: its addresses are who may read.
            documents: `meta_data.json`, `network_data.json`, `user_data`,
                `vendor_data.json`, as they are in OpenStack's config drive; what is not
                given is not there. EC2's forms are derived from the first.

        Raises:
            InvalidRequest: A document of another name.
        """
        unknown = sorted(set(documents) - set(metadata_server.DOCUMENTS))
        if unknown:
            raise InvalidRequest(f"no such metadata documents: {', '.join(unknown)}")
        port = binding.port
        with self._site.locked(port.network_id):
            for directory in self._of_port(port):
                files.directory(directory, 0o755)
                # First, so that what follows is never taken for a former port's.
                files.write(directory / OWNER, port.id.encode())
                changed = [
                    files.write(directory / name, content)
                    for name, content in sorted(documents.items())
                ]
                for name in set(metadata_server.DOCUMENTS) - set(documents):
                    (directory / name).unlink(missing_ok=True)
                if any(changed):
                    changes.record(
                        f"Wrote the metadata for {directory.name}",
                        ["cp", *sorted(documents), str(directory)],
                    )

    def drop(self, port: Port) -> None:
        """Forget what a port's guest is told; already gone is fine.

        What another port put there stays: the address was given on since.
        """
        with self._site.locked(port.network_id):
            for directory in self._of_port(port, make=False):
                if owner_of(directory) in (port.id, None) and files.remove_tree(directory):
                    changes.record(
                        f"Removed the metadata for {directory.name}", ["rm", "-r", str(directory)]
                    )

    def differences(self, binding: PortBinding) -> list[str]:
        """What of a port's documents is not as it should be."""
        return [
            f"there is no metadata for {directory.name}"
            for directory in self._of_port(binding.port, make=False)
            if owner_of(directory) != binding.port.id
            or not (directory / "meta_data.json").is_file()
        ]

    def server_differences(self, network: Network) -> list[str]:
        """What of a network's metadata server is not as it should be."""
        namespace = marks.dhcp_namespace(network.id)
        if self.server(network.id).pid() is None:
            return [f"the metadata server does not run in {namespace}"]
        if not namespaces.run_in(namespace, _listens):
            return [f"nobody listens on {metadata_server.ADDRESS} in {namespace}"]
        return []

    def server(self, network_id: str) -> Server:
        """The network's metadata server."""
        directory = self._site.of_network(network_id) / "metadata"
        namespace = marks.dhcp_namespace(network_id)
        return Server(directory / "server.pid", str(directory / "guests"), namespace)

    def _documents(self, network_id: str) -> Path:
        """Where the documents are: closed to others from above, open to the server inside."""
        files.directory(self._site.directory, 0o711)
        files.directory(self._site.of_network(network_id), 0o711)
        files.directory(self._site.of_network(network_id) / "metadata", 0o700)
        return files.directory(self._site.of_network(network_id) / "metadata" / "guests", 0o755)

    def _of_port(self, port: Port, *, make: bool = True) -> list[Path]:
        if make:
            self._documents(port.network_id)
        guests = self._site.of_network(port.network_id) / "metadata" / "guests"
        return [guests / str(fixed.address) for fixed in port.addresses]


def owner_of(directory: Path) -> str | None:
    """The port that an address' documents are for; None where they do not say."""
    try:
        return (directory / OWNER).read_text()
    except FileNotFoundError:
        return None


def _listens() -> bool:
    try:
        with socket.create_connection(metadata_server.ADDRESS, _CONNECT_TIMEOUT_S):
            return True
    except OSError:
        return False
