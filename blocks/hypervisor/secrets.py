"""Passphrases of encrypted disks, known to libvirt only while a guest is being started.

libvirt's secrets can be ephemeral (never on disk) and private (never told again): see
libvirt's "Secret XML format". QEMU has its own copy, encrypted for it alone, once it runs.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import libvirt
from lxml import etree

from blocks.errors import Conflict
from blocks.hypervisor.connection import Connection
from blocks.inventory import Found
from blocks.marks import link_alias, parse_link_alias

#: A passphrase's kind in the inventory, and in its mark.
KIND = "passphrase"


def secret_id(instance_id: str) -> str:
    """The id under which libvirt is told the passphrase of an instance's disk."""
    return str(uuid.uuid5(uuid.UUID(instance_id), "passphrase"))


class Passphrases:
    """The passphrases that a libvirt knows of a site's disks.

    Args:
        connection: The connection.
        site: Whose are touched: those with this site's mark, which is their description.
    """

    def __init__(self, connection: Connection, site: str) -> None:
        self._connection = connection
        self._site = site

    @contextmanager
    def told(self, instance_id: str, passphrase: str) -> Iterator[None]:
        """Tell libvirt a passphrase, and make it forget it again.

        What a killed process left is overwritten by the next start, forgotten with the
        domain, found by an audit, and gone with libvirtd.

        Args:
            instance_id: Whose.
            passphrase: The passphrase.
        """
        element = etree.Element("secret", ephemeral="yes", private="yes")
        etree.SubElement(element, "uuid").text = secret_id(instance_id)
        mark = link_alias(self._site, KIND, instance_id)
        etree.SubElement(element, "description").text = mark
        xml = etree.tostring(element, encoding="unicode")

        def tell(conn: libvirt.virConnect) -> None:
            conn.secretDefineXML(xml).setValue(passphrase.encode())

        self._connection.call("tell libvirt the passphrase", tell)
        try:
            yield
        finally:
            self.forget(instance_id)

    def forget(self, instance_id: str) -> None:
        """Make libvirt forget a passphrase; already forgotten is fine."""

        def undefine(conn: libvirt.virConnect) -> None:
            try:
                conn.secretLookupByUUIDString(secret_id(instance_id)).undefine()
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_NO_SECRET:
                    raise

        self._connection.call("make libvirt forget the passphrase", undefine)

    def inventory(self) -> list[Found]:
        """The passphrases that libvirt knows now; of a site at rest there is none."""

        def look(conn: libvirt.virConnect) -> list[Found]:
            found = []
            for secret in conn.listAllSecrets(0):
                try:
                    words = etree.fromstring(secret.XMLDesc(0).encode()).findtext("description")
                except libvirt.libvirtError as error:
                    # Forgotten between the list and the look.
                    if error.get_error_code() != libvirt.VIR_ERR_NO_SECRET:
                        raise
                    continue
                mark = parse_link_alias(words or "")
                if mark is not None and mark[:2] == (self._site, KIND):
                    name = secret.UUIDString()
                    found.append(Found(kind=KIND, name=name, owner=mark[2]))
            return sorted(found, key=lambda one: one.name)

        return self._connection.call("list the passphrases", look)

    def remove(self, found: Found) -> None:
        """Make libvirt forget a passphrase that the inventory told of.

        Raises:
            Conflict: It is something else.
        """
        if found.kind != KIND:
            raise Conflict(f"libvirt knows no {found.kind} ({found.name})")
        self.forget(found.owner)
