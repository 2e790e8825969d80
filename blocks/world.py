"""The parts of the world on this host, connected as their Prefect blocks say."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from blocks.fabric import NetworkFabric
from blocks.hypervisor import InstanceDirectories, LibvirtHost
from blocks.images import ImageStore
from blocks.settings import Settings
from blocks.state import StateStore
from blocks.volumes import VolumePool

if TYPE_CHECKING:
    from blocks.hypervisor.block import LibvirtHostBlock

#: The name under which `fifty init` saves this host's blocks.
BLOCK_NAME = "local"


class World:
    """Connections to everything on this host; each is made when it is first used.

    Args:
        settings: Where things are.
        store: The state store.
        use_blocks: Configure by this host's Prefect blocks; else, for when there is no
            Prefect server, by the blocks' defaults.
    """

    def __init__(self, settings: Settings, store: StateStore, *, use_blocks: bool) -> None:
        self.settings = settings
        self.store = store
        self._use_blocks = use_blocks

    @cached_property
    def host_config(self) -> LibvirtHostBlock:
        """This host's configuration."""
        # Here, because Prefect takes two seconds to import and `fifty vm list` has none.
        from blocks.hypervisor.block import LibvirtHostBlock  # noqa: PLC0415
        from blocks.loading import load_block  # noqa: PLC0415

        if self._use_blocks:
            return load_block(LibvirtHostBlock, BLOCK_NAME)
        return LibvirtHostBlock()

    @cached_property
    def site(self) -> str:
        """The state store's site id."""
        return self.store.site

    @cached_property
    def fabric(self) -> NetworkFabric:
        """This host's networking."""
        return NetworkFabric(
            self.settings.networks,
            self.site,
            self.settings.host,
            self.settings.openvswitch_directory,
        )

    @cached_property
    def hypervisor(self) -> LibvirtHost:
        """This host's libvirt."""
        return self.host_config.connect(self.site, self.settings.accelerator)

    @cached_property
    def images(self) -> ImageStore:
        """The image files."""
        return ImageStore(
            self.settings.images,
            {"debian": self.settings.mirror, "ubuntu": self.settings.ubuntu_mirror},
            self.settings.recipes,
            limit_bytes=int(self.settings.image_limit_gib * 1024**3),
            networks=self.settings.import_networks,
        )

    @cached_property
    def directories(self) -> InstanceDirectories:
        """The instances' directories."""
        return InstanceDirectories(self.settings.instances, self.site)

    @cached_property
    def pool(self) -> VolumePool:
        """The data volumes."""
        return VolumePool(self.settings.home / "volumes", self.site)


def open_world(settings: Settings, *, use_blocks: bool = True) -> World:
    """Connect to the state store of these settings and, lazily, to everything else.

    Args:
        settings: Where things are.
        use_blocks: As `World` takes it.

    Raises:
        NotFound: There is no state store yet.
        Conflict: It is of another version.
    """
    store = StateStore(settings.database, settings.host, settings.lease_s)
    store.database.require()
    store.database.require_current()
    return World(settings, store, use_blocks=use_blocks)
