"""The two media of an unattended installation, by pycdlib: the answers, and the drivers.

The answers' medium holds a password, so it is small, readable by QEMU's user alone, and gone
with the build. The drivers' medium has what virtio-win's own medium has for one release of
Windows, and the programs that are installed: it is the same for every build.
"""

from __future__ import annotations

import configparser
import io
import json
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import pycdlib
from pycdlib.pycdlibexception import PyCdlibException

from blocks import changes
from blocks.errors import InvalidRequest, UnsafeImage
from blocks.images.iso9660 import build_volume, checked_name
from blocks.windows.answers import WindowsAnswers
from blocks.windows.autounattend import (
    DRIVERS_FOLDER,
    SCRIPTS_FOLDER,
    compose_generalized,
    compose_installation,
)

ANSWERS_LABEL = "FIFTY_ANSWERS"
DRIVERS_LABEL = "FIFTY_DRIVERS"
#: Folders of virtio-win; without the first three there is no disk, network or serial channel.
NEEDED_DRIVERS = ("viostor", "NetKVM", "vioserial")
FURTHER_DRIVERS = ("vioscsi", "viorng", "Balloon", "pvpanic", "qemupciserial")
#: What `prepare.ps1` looks for in the folder `programs`, and whether it can do without.
PROGRAMS = {
    "cloudbase-init.msi": True,
    "openssh.msi": False,
    "sdelete64.exe": False,
    "qemu-ga-x86_64.msi": False,
}
_SCRIPTS = Path(__file__).with_name("scripts")
_GUEST_AGENT = "guest-agent/qemu-ga-x86_64.msi"
_ARCHITECTURE = "amd64"
#: Of one release, all drivers together have some ten MiB.
_DRIVERS_LIMIT = 512 * 1024**2
#: What pycdlib raises over volumes that are none, or damaged.
_DAMAGE = (PyCdlibException, struct.error, LookupError, ValueError, OSError, RecursionError)


def build_answers(path: Path, answers: WindowsAnswers) -> None:
    """Make the medium with the answers and scripts, unless it is there already.

    Args:
        path: The ISO file; only the owner of its directory may read it.
        answers: What Setup is told.
    """
    files = {
        "Autounattend.xml": compose_installation(answers),
        f"{SCRIPTS_FOLDER}/unattend.xml": compose_generalized(answers),
        f"{SCRIPTS_FOLDER}/settings.json": _settings(answers),
        f"{SCRIPTS_FOLDER}/cloudbase-init.conf": _cloudbase(at_first_boot=False),
        f"{SCRIPTS_FOLDER}/cloudbase-init-unattend.conf": _cloudbase(at_first_boot=True),
    }
    files |= {
        f"{SCRIPTS_FOLDER}/{script.name}": _for_windows(script)
        for script in sorted(_SCRIPTS.glob("*.ps1"))
    }
    if build_volume(path, ANSWERS_LABEL, files):
        changes.record(f"Made the answers' medium {path}", _command(path, ANSWERS_LABEL))


def build_drivers(
    path: Path, virtio_win: Path, release: str, programs: Mapping[str, Path]
) -> list[str]:
    """Make the medium with drivers and programs.

    Args:
        path: The ISO file.
        virtio_win: The `virtio-win.iso` that the operator has fetched, with its licence.
        release: Its folder for a release of Windows (`2k22`, `w11`).
        programs: Files by the names of `PROGRAMS`.

    Returns:
        The drivers that it has.

    Raises:
        InvalidRequest: A driver or program that is needed is missing; the hint tells what
            there is.
        UnsafeImage: The virtio-win medium is none, or out of all proportion.
    """
    unknown = sorted(set(programs) - set(PROGRAMS))
    missing = sorted(name for name, needed in PROGRAMS.items() if needed and name not in programs)
    if unknown or missing:
        words = [f"unknown: {name}" for name in unknown] + [f"missing: {name}" for name in missing]
        raise InvalidRequest(
            f"the programs for Windows are not right ({', '.join(words)})",
            hint=f"known are {', '.join(PROGRAMS)}",
        )
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".drivers-") as scratch:
        found = _drivers(virtio_win, release, Path(scratch))
        held = {PurePosixPath(name).parts[1] for name in found if name.startswith(DRIVERS_FOLDER)}
        given = {f"programs/{name}": file for name, file in programs.items()}
        made = build_volume(path, DRIVERS_LABEL, found | given)
    if made:
        changes.record(f"Made the drivers' medium {path}", _command(path, DRIVERS_LABEL))
    return sorted(held)


def _drivers(virtio_win: Path, release: str, scratch: Path) -> dict[str, Path]:
    """The drivers of one release, copied out of virtio-win's medium."""
    iso = pycdlib.PyCdlib()
    try:
        iso.open(str(virtio_win))
    except _DAMAGE as error:
        raise UnsafeImage(f"{virtio_win} is no ISO 9660 volume ({type(error).__name__})") from error
    try:
        form = "joliet_path" if iso.has_joliet() else "rr_path"
        copier = _Copier(iso, form, scratch)
        for driver in (*NEEDED_DRIVERS, *FURTHER_DRIVERS):
            copier.copy_folder(f"/{driver}/{release}/{_ARCHITECTURE}", f"{DRIVERS_FOLDER}/{driver}")
            if driver in NEEDED_DRIVERS and not copier.has(driver):
                there = ", ".join(copier.names(f"/{driver}")) or "nothing"
                raise InvalidRequest(
                    f"{virtio_win} has no driver {driver} for {release}",
                    hint=f"for {driver} it has {there}",
                )
        copier.copy_file(f"/{_GUEST_AGENT}", "programs/qemu-ga-x86_64.msi")
        return copier.copied
    except _DAMAGE as error:
        raise UnsafeImage(f"{virtio_win} is damaged ({type(error).__name__})") from error
    finally:
        iso.close()


class _Copier:
    """Copies files out of a volume, by names that stay inside the scratch directory."""

    def __init__(self, iso: pycdlib.PyCdlib, form: str, scratch: Path) -> None:
        self._iso = iso
        self._form = form
        self._scratch = scratch
        self._left = _DRIVERS_LIMIT
        self.copied: dict[str, Path] = {}

    def has(self, driver: str) -> bool:
        """Whether something Windows can install was found for a driver."""
        start = f"{DRIVERS_FOLDER}/{driver}/"
        return any(name.startswith(start) and name.lower().endswith(".inf") for name in self.copied)

    def names(self, folder: str) -> list[str]:
        """What is in a folder; nothing where there is none."""
        try:
            children = list(self._iso.list_children(**{self._form: folder}))
        except PyCdlibException:
            return []
        return sorted(
            self._iso.full_path_from_dirrecord(one, rockridge=self._form == "rr_path").rpartition(
                "/"
            )[2]
            for one in children
            if one is not None and not one.is_dot() and not one.is_dotdot()
        )

    def copy_folder(self, folder: str, target: str) -> None:
        """Copy the files that lie directly in a folder."""
        for name in self.names(folder):
            self.copy_file(f"{folder}/{name}", f"{target}/{name}")

    def copy_file(self, source: str, target: str) -> None:
        """Copy a file, if it is there and is one.

        Raises:
            UnsafeImage: All files together are too large.
        """
        try:
            record = self._iso.get_record(**{self._form: source})
        except PyCdlibException:
            return
        if not record.is_file():
            return
        self._left -= record.get_data_length()
        if self._left < 0:
            raise UnsafeImage(f"the drivers are over {_DRIVERS_LIMIT} bytes")
        path = self._scratch / str(len(self.copied))
        with path.open("wb") as file:
            self._iso.get_file_from_iso_fp(file, **{self._form: source})
        self.copied[checked_name(target)] = path


def _settings(answers: WindowsAnswers) -> bytes:
    """What `prepare.ps1` reads, as JSON: nothing is pasted into a script."""
    document = {
        "updates": answers.updates,
        "update_server": answers.update_server,
        "zero_free": answers.zero_free,
        "drivers_folder": DRIVERS_FOLDER,
    }
    return json.dumps(document, indent=2).encode()


def _cloudbase(*, at_first_boot: bool) -> bytes:
    """cloudbase-init's configuration: the config drive alone, keys and user data.

    Args:
        at_first_boot: The part that runs while sysprep's answers are worked on: it sets the
            name, and leaves the reboot to Setup.
    """
    early = ("mtu.MTUPlugin", "sethostname.SetHostNamePlugin", "extendvolumes.ExtendVolumesPlugin")
    late = (
        *("createuser.CreateUserPlugin", "setuserpassword.SetUserPasswordPlugin"),
        *("networkconfig.NetworkConfigPlugin", "sshpublickeys.SetUserSSHPublicKeysPlugin"),
        *("userdata.UserDataPlugin", "localscripts.LocalScriptsPlugin"),
    )
    plugins = early if at_first_boot else (*early, *late)
    config = configparser.RawConfigParser()
    config["DEFAULT"] = {
        "username": "Administrator",
        "groups": "Administrators",
        "inject_user_password": "true",
        "first_logon_behaviour": "no",
        "config_drive_types": "iso",
        "config_drive_locations": "cdrom,hdd,partition",
        "metadata_services": "cloudbaseinit.metadata.services.configdrive.ConfigDriveService",
        "plugins": ",".join(f"cloudbaseinit.plugins.{_module(one)}" for one in plugins),
        "allow_reboot": "false" if at_first_boot else "true",
        "stop_service_on_exit": "false",
        "check_latest_version": "false",
        "logging_serial_port_settings": "COM1,115200,N,8",
        "debug": "true",
    }
    text = io.StringIO()
    config.write(text)
    return text.getvalue().replace("\n", "\r\n").encode()


def _module(plugin: str) -> str:
    """Where cloudbase-init has a plugin: all but some run on any system."""
    windows = ("createuser", "extendvolumes")
    return f"{'windows' if plugin.startswith(windows) else 'common'}.{plugin}"


def _for_windows(script: Path) -> bytes:
    """A script with the byte order mark and line ends that PowerShell 5 reads as UTF-8."""
    text = script.read_text(encoding="utf-8")
    return b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()


def _command(path: Path, label: str) -> list[str]:
    return ["xorriso", "-as", "mkisofs", "-o", str(path), "-V", label, "-J", "-r", "files/"]
