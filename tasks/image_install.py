"""An image from an installer's medium: its steps, beside those of a build in the catalogue.

The installer runs in a machine of its own, which is found by the image's id, without any
network: its disk, media and console are in a directory as an instance's.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

from prefect import get_run_logger
from pydantic import ValidationError

from blocks import changes
from blocks.commands import run
from blocks.errors import Conflict, HostFault, InvalidRequest
from blocks.hypervisor.console import guest_fault
from blocks.hypervisor.installer import (
    Installer,
    Keyboard,
    specify_installer,
    wait_until_through,
)
from blocks.hypervisor.instance_dirs import CONSOLE_LOG, DISK
from blocks.hypervisor.wishes import of_installed
from blocks.images import qemu_img
from blocks.images.boot_sector import has_boot_sector
from blocks.images.capture import capture
from blocks.images.files import replacing
from blocks.images.iso9660 import build_volume
from blocks.images.stored import StoredImage
from blocks.loading import load_secret
from blocks.resources import Image
from blocks.resources.image_install import InstallRequest
from blocks.state import Build, Caller, StateStore
from blocks.state.tables.base import now
from blocks.windows import WindowsAnswers, build_answers, build_drivers
from blocks.world import World
from tasks.access import admitted
from tasks.draft import describe_all
from tasks.image_build import forget_image, remove_file, step
from tasks.image_names import named
from tasks.step_progress import telling

_GIB = 1024**3
_INSTALLER, _ANSWERS, _DRIVERS = "installer.iso", "answers.iso", "drivers.iso"
_COPY_TIMEOUT_S = 3600.0
#: Where an ISO 9660 volume says what it is.
_MAGIC_AT, _MAGIC = 0x8001, b"CD001"
#: Whom cloud-init (cloudbase-init, which `blocks.windows` configures so) gives the key.
_LOGIN_USER = {"linux": "root", "windows": "Administrator"}
#: What sysprep has sealed goes through Windows' setup once more, with reboots.
_BOOT_TIMEOUT_S = {"linux": 300, "windows": 1800}
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@step(31, "Validate the install request")
def validate_install(build: Build, form: dict[str, Any], store: StateStore) -> str:
    """Look at the whole request: the caller, the media, the answers, and the name.

    It is an admin's to ask: the media are files of the host. OpenStack has nothing here; its
    image guide says to install by hand with `virt-install`.
    """
    caller = admitted(build, store, "image:install")
    wrong = describe_all(InstallRequest, form)
    if wrong:
        raise InvalidRequest("the install request is wrong", details=wrong)
    request = InstallRequest.model_validate(form)
    for path in request.host_files:
        _require_file(Path(path))
    with Path(request.medium).open("rb") as file:
        file.seek(_MAGIC_AT)
        if file.read(len(_MAGIC)) != _MAGIC:
            raise InvalidRequest(f"{request.medium} is no ISO 9660 volume")
    if request.windows is not None:
        _answers(request)
    if named(build, store, caller, request.name):
        raise Conflict(
            f"an image named {request.name!r} is there already",
            hint=f"`fifty image delete {request.name}` first, or give the new one another name",
        )
    store.builds.update(build.id, name=request.name)
    return request.name


def remove_machine(build: Build, world: World) -> None:
    """Remove the installer's directory: disk, media, console."""
    world.directories.remove(build.id)


@step(32, "Make the installer's disk and media", undo=remove_machine)
def make_media(build: Build, world: World) -> list[str]:
    """Make an empty disk, a copy of the installer's medium, and the medium with the answers.

    QEMU's user may read nothing but that directory, so the medium is copied (where the file
    system can, without taking room).
    """
    request = InstallRequest.model_validate(build.request)
    directory = world.directories.prepare(build.id)
    disk = directory / DISK
    if not disk.exists():
        with replacing(disk, mode=0o600) as part:
            words = qemu_img.create_empty(part, request.disk_gib * _GIB)
        changes.record(f"Made the empty disk {disk}", [*words[:-2], str(disk), words[-1]])
    _copy(Path(request.medium), directory / _INSTALLER)
    if request.windows is not None:
        build_answers(directory / _ANSWERS, _answers(request))
        programs = {name: Path(path) for name, path in request.windows.programs.items()}
        release = request.windows.drivers
        build_drivers(directory / _DRIVERS, Path(request.windows.virtio_win), release, programs)
    elif request.answers:
        files: dict[str, bytes | Path] = {
            file.path: file.content.encode() for file in request.answers
        }
        if build_volume(directory / _ANSWERS, request.answers_label, files):
            changes.record(f"Made the answers' medium {directory / _ANSWERS}", ["xorriso", "-as"])
    return [path.name for path in _media(directory)]


def undefine_machine(build: Build, world: World) -> None:
    """Stop the installer's machine, and make libvirt forget it."""
    world.hypervisor.undefine(build.id)


@step(33, "Define the installer's machine", undo=undefine_machine)
def define_machine(build: Build, world: World) -> None:
    """Make libvirt know the machine: it boots the medium, as its disk is empty."""
    request = InstallRequest.model_validate(build.request)
    directory = world.directories.path(build.id)
    spec = specify_installer(
        world.hypervisor.capabilities(),
        world.site,
        Installer(
            build_id=build.id,
            tenant_id=build.tenant_id or "",
            name=request.name,
            directory=directory,
            media=tuple(_media(directory)),
            vcpus=request.vcpus,
            ram_mib=request.ram_mib,
            system=request.system,
            firmware=request.machine_firmware,
            virtio=request.virtio,
            created_at=build.accepted_at,
        ),
    )
    xml = world.hypervisor.compose(spec)
    world.hypervisor.validate(xml)
    world.hypervisor.define(xml)


def stop_machine(build: Build, world: World) -> None:
    """Stop the installer's machine at once."""
    world.hypervisor.destroy(build.id)


@step(34, "Run the installer", undo=stop_machine)
def run_installer(build: Build, world: World, store: StateStore) -> None:
    """Let it run until it shuts its machine down, or reboots it, within the time limit.

    What its serial console says is in the run's log. Gone on with, it is waited for: it runs
    on without us, but not through a restart of the host, which leaves half a system.
    """
    request = InstallRequest.model_validate(build.request)
    log = world.directories.path(build.id) / CONSOLE_LOG
    boot, began = _BOOT_ID.read_text().strip(), build.plan.get("installer_began")
    running = world.hypervisor.state(build.id) in ("running", "paused")
    if began not in (None, boot) and not running:
        raise HostFault(
            "the host was restarted while the installer ran",
            hint="`fifty reconcile` undoes it; then install it again",
        )
    if began is None or running or not log.exists():
        store.builds.note(build.id, installer_began=boot)
        world.hypervisor.start_paused(build.id)
        world.hypervisor.resume(build.id)
        if request.system == "windows" and request.machine_firmware == "uefi":
            Keyboard(world.hypervisor.connection, world.site).press_any_key(build.id)
    tell = get_run_logger().info
    wait_until_through(world.hypervisor, build.id, log, request.timeout_min * 60.0, tell)
    if not has_boot_sector(world.directories.path(build.id) / DISK):
        raise guest_fault("the installer has ended, and left nothing on its disk that boots", log)


@step(35, "Capture the disk", undo=remove_file)
def capture_disk(build: Build, world: World, store: StateStore) -> dict[str, Any]:
    """Copy what was installed into the store, compressed, and look at it.

    Here Nova takes a snapshot of the instance, and uploads it to Glance
    (`nova.virt.libvirt.driver.LibvirtDriver.snapshot`).
    """
    target = world.settings.images / "store" / f"{build.id}.qcow2"
    with telling("compressing", build.name) as meter:
        made = capture(world.directories.path(build.id) / DISK, target, meter.percent)
    document = made.model_dump(mode="json")
    store.builds.note(build.id, captured=document)
    return document


@step(36, "Record the installed image", undo=forget_image)
def record_install(build: Build, caller: Caller, store: StateStore) -> str:
    """Record the image in the catalogue, with checksum and sizes: it is active now.

    And by Glance's properties the machine that it was installed on: its VMs need such a one.
    """
    request = InstallRequest.model_validate(build.request)
    made = StoredImage.model_validate(build.plan["captured"])
    wishes = of_installed(request.system, request.machine_firmware, virtio=request.virtio)
    store.images.put(
        Image(
            **made.model_dump(mode="json"),
            id=build.id,
            tenant_id=caller.tenant_id,
            name=request.name,
            min_disk_gib=request.disk_gib,
            os=request.system,
            login_user=request.login_user or _LOGIN_USER[request.system],
            boot_timeout_s=_BOOT_TIMEOUT_S[request.system],
            properties=wishes.properties,
            injectable=False,
            source=f"installed from {Path(request.medium).name}",
            built_at=now(),
        )
    )
    return build.id


@step(37, "Clear the installer's machine away")
def clear_away(build: Build, world: World) -> None:
    """Remove machine, disk and media: the answers may hold a password."""
    world.hypervisor.undefine(build.id)
    world.directories.remove(build.id)


def _require_file(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(mode):
        raise InvalidRequest(f"{path} is not a regular file")


def _answers(request: InstallRequest) -> WindowsAnswers:
    """What Windows' installer is told, with the password from its Secret block."""
    windows = request.windows
    assert windows is not None  # noqa: S101 - for the type checker: who calls has looked
    held = load_secret(windows.password_secret)
    said = windows.model_dump(exclude={"password_secret", "virtio_win", "programs"})
    try:
        return WindowsAnswers.model_validate({**said, "password": held})
    except ValidationError as error:
        reasons = "; ".join(one["msg"] for one in error.errors())
        raise InvalidRequest(
            f"what the Secret block {windows.password_secret!r} holds is no password for "
            f"Windows: {reasons}"
        ) from None


def _media(directory: Path) -> list[Path]:
    names = (_INSTALLER, _ANSWERS, _DRIVERS)
    return [directory / name for name in names if (directory / name).exists()]


def _copy(source: Path, target: Path) -> None:
    if target.exists():
        return
    words = ["cp", "--reflink=auto", "--sparse=always", "--", str(source)]
    with replacing(target, mode=0o400) as part:
        run(*words, part, timeout_s=_COPY_TIMEOUT_S)
    changes.record(f"Copied the medium {source}", [*words, str(target)])
