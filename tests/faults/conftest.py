"""The site of the tests, with a libvirtd that may be killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.hypervisor.block import LibvirtHostBlock
from blocks.loading import load_block
from blocks.world import BLOCK_NAME
from tests.cloud import Cloud
from tests.faults.private_libvirt import PrivateLibvirt


@pytest.fixture
def private(cloud: Cloud, session_directory: Path) -> Iterator[PrivateLibvirt]:
    """A libvirtd of this test's own, which builds use: the block `local` names it.

    VMs that the test made are deleted while it is there, whatever became of them.
    """
    kept = cloud.vms()
    found = PrivateLibvirt(session_directory / "libvirt")
    try:
        found.start()
        usual = load_block(LibvirtHostBlock, BLOCK_NAME)
        usual.model_copy(update={"uri": found.uri}).save(BLOCK_NAME, overwrite=True)
        try:
            yield found
        finally:
            found.start()
            cloud.delete(cloud.vms() - kept)
            usual.save(BLOCK_NAME, overwrite=True)
    finally:
        found.close()
