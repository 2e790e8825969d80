"""The Prefect block that tells how to reach libvirt."""

from __future__ import annotations

from typing import Literal

from prefect.blocks.core import Block
from pydantic import Field

from blocks.block_pages import documentation_url, logo_url
from blocks.hypervisor import LibvirtHost


class LibvirtHostBlock(Block):
    """How to reach the hypervisor of a host.

    Example:
        The libvirt of a host:
        ```python
        from blocks.hypervisor.block import LibvirtHostBlock

        host = LibvirtHostBlock.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Fifty Libvirt Host"
    _block_type_slug = "fifty-libvirt-host"
    _description = "A host's libvirt, where Fifty Steps runs its guests."
    _logo_url = logo_url()
    _documentation_url = documentation_url()

    uri: str = Field(default="qemu:///system", description="libvirt's connection URI.")
    accelerator: Literal["auto", "kvm", "tcg"] = Field(
        default="auto", description="`auto` asks the machine; `kvm` and `tcg` insist."
    )
    zone: str = Field(default="nova", description="The host's availability zone.")
    vcpu_ratio: float = Field(default=16.0, gt=0, description="Overcommit of processors.")
    ram_ratio: float = Field(default=1.5, gt=0, description="Overcommit of memory.")
    disk_ratio: float = Field(default=2.0, gt=0, description="Overcommit of disk space.")

    def connect(self, site: str, accelerator: str = "auto") -> LibvirtHost:
        """The connection that this block configures; opened when it is first used.

        Args:
            site: The state store's site id.
            accelerator: What the environment insists on (`FIFTY_ACCELERATOR`); `auto`
                leaves it to the block.
        """
        chosen = self.accelerator if accelerator == "auto" else accelerator
        return LibvirtHost(self.uri, chosen, site)
