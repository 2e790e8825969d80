"""A reboot of the host, as a site of the tests finds it afterwards.

What lives in the kernel is gone: guests, processes, mounts, namespaces, links, nft tables,
connections.
What lives on disks is there: files with their old pids in them, libvirt's definitions, the
state store. And the store was written on a boot that had another id: the kernel's own id
stays, so the one in the records is changed.
"""

from __future__ import annotations

import uuid

import libvirt
from sqlalchemy import update

from blocks.commands import run
from blocks.state.tables import JournalRow, LeaseRow
from deployments import libvirt_daemons
from tests import leftovers
from tests.cloud import Cloud


def reboot(cloud: Cloud) -> list[str]:
    """Cut the power of the site, and let the host come up again without it.

    Returns:
        What is gone, in words.
    """
    gone = _cut_power(cloud)
    gone += leftovers.remove_what_no_reboot_leaves(cloud.home.parent, {cloud.world.site})
    for network in cloud.world.store.networks.list():
        # 1: there was no connection.
        run("conntrack", "--delete", "--zone", str(network.zone), ok_codes=(0, 1))
    earlier = str(uuid.uuid4())
    with cloud.world.store.database.write() as session:
        for table in (JournalRow, LeaseRow):
            session.execute(update(table).values(boot_id=earlier))
    return gone


def _cut_power(cloud: Cloud) -> list[str]:
    """Stop the site's guests; their definitions stay."""
    gone = []
    connection = libvirt.open(libvirt_daemons.URI)
    try:
        for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
            if f"{cloud.home}/" in domain.XMLDesc():
                gone.append(f"guest {domain.name()}")
                domain.destroy()
    finally:
        connection.close()
    return gone
