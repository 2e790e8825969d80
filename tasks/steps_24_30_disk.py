"""Steps 24 to 30, the compute node: the guest's specification and its disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import get_run_logger

from blocks.hypervisor import InstanceDirectories, LibvirtHost
from blocks.images import ImageStore
from blocks.resources import DiskMode, Image, Instance, PortBinding, VmRequest, Volume
from blocks.state import Build, StateStore
from blocks.volumes import VolumePool
from tasks.image_passphrase import passphrase_of
from tasks.vm_build import VM

step = VM.stage("C")

GIB = 1024**3


@step(24, "Hand over to the libvirt driver")
def hand_over(
    build: Build,
    instance: Instance,
    bindings: list[PortBinding],
    volumes: list[Volume],
    image: Image,
    directory: Path,
    hypervisor: LibvirtHost,
    pool: VolumePool,
    store: StateStore,
) -> dict[str, Any]:
    """Fix the guest's specification, checked against what this host's libvirt can do.

    Accelerator, processor model, machine type; what the image's system and properties ask
    for: firmware, buses, models. Here Nova calls the driver's `spawn`
    (`nova.virt.libvirt.driver.LibvirtDriver._get_guest_config`).
    """
    for volume in volumes:
        store.volumes.set_path(volume.id, str(pool.path_of(volume)))
    plugged = store.volumes.of(instance.id)
    spec = hypervisor.guest_spec(instance, bindings, plugged, directory, image)
    document = spec.model_dump(mode="json")
    store.builds.note(build.id, spec=document)
    return document


def remove_directory(build: Build, directories: InstanceDirectories, store: StateStore) -> None:
    """Remove the instance's directory with all that is in it: its snapshots, too."""
    directories.remove(build.id)
    store.snapshots.forget_all(build.id)


@step(25, "Prepare the instance directory", undo=remove_directory)
def prepare_directory(build: Build, directories: InstanceDirectories) -> str:
    """Make the instance's directory: mode 0700, owned by the user that QEMU runs as.

    Here Nova makes `/var/lib/nova/instances/UUID`
    (`nova.virt.libvirt.driver.LibvirtDriver._create_image`).
    """
    return str(directories.prepare(build.id))


@step(26, "Fetch the base image")
def fetch_base(image: Image, images: ImageStore) -> str:
    """Get the image into this host's cache: once for all, checksum and inspection passed.

    Here Nova downloads from Glance into `_base` (`nova.virt.libvirt.imagecache`), under a
    lock of the image's name. The base stays for the next VM, so there is nothing to undo.
    """
    logger = get_run_logger()

    def progress(done: int, total: int) -> None:
        logger.info("%s: %d of %d MiB", image.name, done // 1024**2, total // 1024**2)

    return str(images.fetch_base(image, progress))


def remove_disk(disk: Path, images: ImageStore) -> None:
    """Remove the root disk."""
    images.remove_disk(disk)


@step(27, "Create the disk on its base", undo=remove_disk)
def create_disk(
    image: Image, instance: Instance, base: Path, disk: Path, images: ImageStore
) -> str:
    """Make the root disk as the flavor asks: an overlay on the base, or a full copy of it.

    Of a qcow2 overlay (chained) only what the guest writes takes space; a copy (flat) is
    sparse, and needs the base no more. The seed's step 27. Here Nova runs `qemu-img create
    -b` (`nova.virt.libvirt.imagebackend.Qcow2.create_image`), or copies (`Flat`).
    """
    copied = None
    if instance.flavor.disk_mode is DiskMode.FLAT:
        logger = get_run_logger()

        def copied(percent: float) -> None:
            logger.info("%s: %.0f %% copied", image.name, percent)

    passphrase = passphrase_of(image)
    if passphrase is not None:
        # What the guest writes is encrypted as what it began with; and QEMU could not make
        # it larger later without the passphrase.
        size = instance.flavor.disk_gib * GIB
        images.create_encrypted_disk(base, disk, passphrase, size, copied)
    else:
        images.create_disk(base, image.format, disk, copied)
    return str(disk)


@step(28, "Resize the disk")
def resize_disk(instance: Instance, disk: Path, images: ImageStore) -> int:
    """Grow the disk's virtual size to the flavor's, whatever the file system inside.

    The seed's step 28. Here Nova calls `nova.virt.disk.api.extend`; the guest grows its
    own partition and file system. Removed with the disk, so there is nothing to undo.
    """
    size = instance.flavor.disk_gib * GIB
    images.resize_disk(disk, size)
    return size


def remove_config_drive(config_drive: Path, images: ImageStore) -> None:
    """Remove the config drive."""
    images.remove_disk(config_drive)


@step(29, "Build the config drive", undo=remove_config_drive)
def build_config_drive(
    metadata: Mapping[str, bytes], config_drive: Path, images: ImageStore
) -> list[str]:
    """Write meta data, network data, user data and vendor data to an ISO 9660 disk.

    The seed's step 29. Volume id `config-2`, as cloud-init's ConfigDrive wants it. Here
    Nova runs genisoimage (`nova.virt.configdrive.ConfigDriveBuilder`).
    """
    images.build_config_drive(config_drive, metadata)
    return sorted(metadata)


def end_injection(disk: Path, images: ImageStore) -> None:
    """End whatever an interrupted injection left: the disk's export and its process."""
    images.end_injection(disk)


@step(30, "Inject the files", undo=end_injection)
def inject_files(request: VmRequest, disk: Path, images: ImageStore) -> list[str]:
    """Write the files that were asked for into the disk's file system, without booting it.

    The seed's step 30. Here Nova mounts the disk or uses libguestfs
    (`nova.virt.disk.api.inject_data`); this exports it by FUSE and writes with debugfs,
    so that the host's kernel never mounts a file system that one does not trust.
    """
    if request.inject:
        images.inject(disk, request.inject)
    return [file.path for file in request.inject]
