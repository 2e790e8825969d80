"""What of this site's fabric is on the host, by its marks alone, and its removal.

Nothing is looked up in the state store here: links tell by their alias, namespaces by
the alias of their own loopback device (which they had before they had a name), nft tables
by the site in their name, what is in Open vSwitch by its `external_ids`, processes by a
file of our directory in their command line. A
namespace's name that leads nowhere (its maker was killed half-way) cannot tell whose it
is; it is ours where our directory has the network's.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from pathlib import Path

from pyroute2 import IPRoute

from blocks import ages, changes, marks
from blocks.errors import Conflict, InvalidRequest
from blocks.fabric import files, legs, links, metadata, namespaces, nft, processes
from blocks.fabric.dhcp import Dhcp
from blocks.fabric.firewall import Firewall
from blocks.fabric.links import with_links
from blocks.fabric.segments import Vswitch, vswitch_inventory
from blocks.fabric.site import Site
from blocks.inventory import Found

#: The arguments by which our servers are known, and the network in them.
_TOKENS = {
    "dnsmasq": r"--conf-file={home}/([0-9a-f-]+)/dhcp/dnsmasq\.conf",
    "metadata": r"{home}/([0-9a-f-]+)/metadata/guests",
}
_RESERVATION, _DOCUMENTS = "reservation", "metadata"
#: Links that hold others come after those.
_LAST = {"vxlan": 1, "bridge": 2}


class Inventory:
    """The site's things on this host."""

    def __init__(self, site: Site, dhcp: Dhcp, firewall: Firewall, vswitch: Vswitch) -> None:
        self._site = site
        self._dhcp = dhcp
        self._firewall = firewall
        self._vswitch = vswitch

    def found(self) -> list[Found]:
        """Everything with this site's mark, in an order in which it can be removed."""
        return [
            *self._processes(),
            # Before the rules, which know the zone that their connections are in.
            *self._of_guests(),
            *self._nft(),
            *vswitch_inventory.found(self._vswitch, self._site.name),
            *self._links(),
            *self._namespaces(),
            *self._directories(),
        ]

    def remove(self, found: Found) -> None:
        """Remove one of them; already gone is fine.

        Raises:
            InvalidRequest: It is of a kind that the fabric does not make.
            Conflict: By now the name belongs to something with another mark.
        """
        removers: dict[str, Callable[[Found], None]] = {
            "process": self._stop,
            "nft": self._remove_nft,
            vswitch_inventory.BRIDGE: self._remove_from_vswitch,
            vswitch_inventory.PORT: self._remove_from_vswitch,
            "link": self._remove_link,
            "namespace": self._remove_namespace,
            _RESERVATION: self._remove_reservation,
            _DOCUMENTS: self._remove_documents,
            "directory": self._remove_directory,
        }
        if found.kind not in removers:
            raise InvalidRequest(f"the fabric makes no {found.kind}")
        removers[found.kind](found)

    def _processes(self) -> list[Found]:
        found = []
        for path in sorted(Path("/proc").glob("[0-9]*"), key=lambda each: int(each.name)):
            for word in processes.command_line(int(path.name)):
                server = self._server(word)
                if server:
                    name, owner = server
                    age, detail = ages.of_process(int(path.name)), f"pid {path.name}"
                    found.append(
                        Found(kind="process", name=name, owner=owner, age_s=age, detail=detail)
                    )
        return found

    def _server(self, word: str) -> tuple[str, str] | None:
        """Name and network of the server whose command line has this word."""
        home = re.escape(str(self._site.directory))
        for name, pattern in _TOKENS.items():
            match = re.fullmatch(pattern.format(home=home), word)
            if match:
                return name, match[1]
        return None

    def _nft(self) -> list[Found]:
        table = marks.firewall_table(self._site.name)
        ports = self._firewall.protected()
        found = [Found(kind="nft", name=f"{table} {port}", owner=port) for port in ports]
        for item in nft.listing("tables") or []:
            family, name = item["table"]["family"], item["table"]["name"]
            if name == table and not ports:
                found.append(Found(kind="nft", name=f"{family} {name}", owner=self._site.name))
            elif family == "ip" and name.startswith(f"{table}_"):
                owner = name.removeprefix(f"{table}_")
                found.append(Found(kind="nft", name=f"{family} {name}", owner=owner))
        return found

    def _links(self) -> list[Found]:
        def look(ipr: IPRoute) -> list[Found]:
            found = []
            for link in sorted(
                links.all_links(ipr), key=lambda each: _LAST.get(each.kind or "", 0)
            ):
                mark = marks.parse_link_alias(link.alias or "")
                if mark and mark[0] == self._site.name:
                    detail = f"{link.kind} {link.index}, for a {mark[1]}"
                    found.append(Found(kind="link", name=link.name, owner=mark[2], detail=detail))
            return found

        return with_links(None, look)

    def _namespaces(self) -> list[Found]:
        found = []
        for name in namespaces.names(marks.NAMESPACE_PREFIX):
            owner = self._owner(name)
            if owner:
                age = namespaces.age_s(name)
                found.append(Found(kind="namespace", name=name, owner=owner, age_s=age))
        return found

    def _owner(self, namespace: str) -> str | None:
        """Whom a namespace of ours is for; None for one that is not ours."""
        if namespaces.exists(namespace):
            mark = marks.parse_link_alias(namespaces.mark_of(namespace) or "")
            return mark[2] if mark and mark[0] == self._site.name else None
        identifier = namespace.removeprefix(marks.NAMESPACE_PREFIX).partition("-")[2]
        return identifier if self._site.of_network(identifier).is_dir() else None

    def _directories(self) -> list[Found]:
        return [
            Found(kind="directory", name=str(path), owner=path.name, age_s=ages.of_file(path))
            for path in self._networks()
        ]

    def _networks(self) -> list[Path]:
        """The directories that are of networks, by their names."""
        if not self._site.directory.is_dir():
            return []
        return [
            path
            for path in sorted(self._site.directory.iterdir())
            if path.is_dir() and _is_uuid(path.name)
        ]

    def _of_guests(self) -> list[Found]:
        """What is kept for each port, by its id; documents that say none are their network's."""
        found = []
        for network in self._networks():
            for path in sorted((network / "dhcp" / "hosts").glob("[0-9a-f]*")):
                age = ages.of_file(path)
                found.append(Found(kind=_RESERVATION, name=str(path), owner=path.name, age_s=age))
            for path in sorted((network / "metadata" / "guests").glob("[0-9]*")):
                owner, age = metadata.owner_of(path) or network.name, ages.of_file(path)
                found.append(Found(kind=_DOCUMENTS, name=str(path), owner=owner, age_s=age))
        return found

    def _stop(self, found: Found) -> None:
        pid = int(found.detail.removeprefix("pid "))
        for word in processes.command_line(pid):
            if self._server(word) == (found.name, found.owner) and processes.stop(pid, word):
                changes.record(f"Stopped {found.name}, {found.detail}", ["kill", str(pid)])

    def _remove_nft(self, found: Found) -> None:
        family, _, name = found.name.partition(" ")
        table = marks.firewall_table(self._site.name)
        if family == table:
            self._firewall.remove(found.owner)
        elif name == table or name.startswith(f"{table}_"):
            if nft.listing("table", family=family, name=name) is not None:
                nft.apply(nft.remove_table({"family": family, "table": name}))
                command = ["nft", "delete", "table", family, name]
                changes.record(f"Removed the table {found.name}", command)
        else:
            raise Conflict(f"the table {found.name} is not ours")

    def _remove_from_vswitch(self, found: Found) -> None:
        vswitch_inventory.remove(self._vswitch, self._site.name, found)

    def _remove_link(self, found: Found) -> None:
        def delete(ipr: IPRoute) -> None:
            link = links.find(ipr, found.name)
            mark = marks.parse_link_alias(link.alias or "") if link else None
            if link is None:
                return
            if mark is None or (mark[0], mark[2]) != (self._site.name, found.owner):
                raise Conflict(f"the link {found.name} is not ours: its alias is {link.alias!r}")
            links.delete(ipr, found.name, self._site.alias(mark[1], found.owner))

        with_links(None, delete)

    def _remove_namespace(self, found: Found) -> None:
        if found.name not in namespaces.names(marks.NAMESPACE_PREFIX):
            return
        if self._owner(found.name) != found.owner:
            raise Conflict(f"the namespace {found.name} is not ours")
        legs.remove_legs(found.name)
        namespaces.remove(found.name)

    def _remove_reservation(self, found: Found) -> None:
        path = Path(found.name)
        network = path.parents[2].name
        if path != self._site.of_network(network) / "dhcp" / "hosts" / found.owner:
            raise Conflict(f"the reservation {found.name} is not ours")
        self._dhcp.forget(network, found.owner)

    def _remove_documents(self, found: Found) -> None:
        path = Path(found.name)
        network, address = path.parents[2].name, path.name
        if path != self._site.of_network(network) / "metadata" / "guests" / address:
            raise Conflict(f"the documents {found.name} are not ours")
        if not path.is_dir():
            return
        with self._site.locked(network):
            if metadata.owner_of(path) not in (found.owner, None):
                raise Conflict(f"the documents {found.name} are another port's by now")
            self._firewall.forget_connections(network, address)
            if files.remove_tree(path):
                changes.record(f"Removed the metadata for {address}", ["rm", "-r", str(path)])

    def _remove_directory(self, found: Found) -> None:
        path = Path(found.name)
        if path.parent != self._site.directory or not _is_uuid(path.name):
            raise Conflict(f"the directory {found.name} is not ours")
        if files.remove_tree(path):
            changes.record(f"Removed the directory {path}", ["rm", "-r", str(path)])


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
