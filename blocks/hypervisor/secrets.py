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

from blocks.hypervisor.connection import Connection


def secret_id(instance_id: str) -> str:
    """The id under which libvirt is told the passphrase of an instance's disk."""
    return str(uuid.uuid5(uuid.UUID(instance_id), "passphrase"))


@contextmanager
def told(connection: Connection, instance_id: str, passphrase: str) -> Iterator[None]:
    """Tell libvirt a passphrase, and make it forget it again.

    What a killed process left is overwritten by the next start, and gone with libvirtd.

    Args:
        connection: The connection.
        instance_id: Whose.
        passphrase: The passphrase.
    """
    element = etree.Element("secret", ephemeral="yes", private="yes")
    etree.SubElement(element, "uuid").text = secret_id(instance_id)
    etree.SubElement(element, "description").text = f"fifty: the disk of {instance_id}"
    xml = etree.tostring(element, encoding="unicode")

    def tell(conn: libvirt.virConnect) -> None:
        conn.secretDefineXML(xml).setValue(passphrase.encode())

    connection.call("tell libvirt the passphrase", tell)
    try:
        yield
    finally:
        forget(connection, instance_id)


def forget(connection: Connection, instance_id: str) -> None:
    """Make libvirt forget a passphrase; already forgotten is fine."""

    def undefine(conn: libvirt.virConnect) -> None:
        try:
            conn.secretLookupByUUIDString(secret_id(instance_id)).undefine()
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_SECRET:
                raise

    connection.call("make libvirt forget the passphrase", undefine)
