"""The parts of the world on this host, connected as their Prefect blocks say."""

from __future__ import annotations

from functools import cached_property

from blocks.fabric import NetworkFabric
from blocks.hypervisor import InstanceDirectories, LibvirtHost
from blocks.images import ImageStore
from blocks.settings import Settings
from blocks.state import StateStore
from blocks.volumes import VolumePool

#: The name under which `fifty init` saves this host's blocks.
BLOCK_NAME = "local"


class World:
    """Connections to everything on this host; each is made when it is first used.

    Args:
        settings: Where things are.
        store: The state store.
    """

    def __init__(self, settings: Settings, store: StateStore) -> None:
        self.settings = settings
        self.store = store

    @cached_property
    def site(self) -> str:
        """The state store's site id."""
        return self.store.site

    @cached_property
    def fabric(self) -> NetworkFabric:
        """This host's networking."""
        return NetworkFabric(self.settings.networks, self.site, self.settings.host)

    @cached_property
    def hypervisor(self) -> LibvirtHost:
        """This host's libvirt."""
        return LibvirtHost("qemu:///system", self.settings.accelerator, self.site)

    @cached_property
    def images(self) -> ImageStore:
        """The image files."""
        return ImageStore(self.settings.images, self.settings.mirror)

    @cached_property
    def directories(self) -> InstanceDirectories:
        """The instances' directories."""
        return InstanceDirectories(self.settings.instances, self.site)

    @cached_property
    def pool(self) -> VolumePool:
        """The data volumes."""
        return VolumePool(self.settings.home / "volumes", self.site)


def open_world(settings: Settings) -> World:
    """Connect to the state store of these settings and, lazily, to everything else.

    Raises:
        NotFound: There is no state store yet.
    """
    store = StateStore(settings.database, settings.host)
    store.database.require()
    return World(settings, store)
