"""The unattended installation of Windows: answers and media, read back by other tools."""

from __future__ import annotations

import base64
import configparser
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pycdlib
import pytest
from lxml import etree
from pydantic import ValidationError

from blocks import changes
from blocks.errors import InvalidRequest, UnsafeImage
from blocks.windows import (
    ANSWERS_LABEL,
    DRIVERS_LABEL,
    WindowsAnswers,
    build_answers,
    build_drivers,
)
from blocks.windows.autounattend import compose_generalized, compose_installation
from blocks.windows.media import NEEDED_DRIVERS

CANARY = 'S3cr3t & <Triangle> "x"'
WANTED: dict[str, Any] = {
    "edition": "Windows Server 2022 SERVERSTANDARD",
    "accept_license": True,
    "password": CANARY,
}
NAMES = {
    "u": "urn:schemas-microsoft-com:unattend",
    "wcm": "http://schemas.microsoft.com/WMIConfig/2002/State",
}
PASSES = ["windowsPE", "offlineServicing", "generalize", "specialize", "oobeSystem"]


def answers(**changed: object) -> WindowsAnswers:
    return WindowsAnswers.model_validate(WANTED | changed)


def texts(document: bytes, path: str) -> list[str]:
    """The texts at a path in which every name is Microsoft's."""
    steps = "/".join(
        f"u:{step}" if step and step[0].isalpha() else step for step in path.split("/")
    )
    found = etree.fromstring(document).xpath(f"{steps}/text()", namespaces=NAMES)
    assert isinstance(found, list)
    return [str(one) for one in found]


def extracted(iso: Path, to: Path) -> dict[str, bytes]:
    """What xorriso finds by Rock Ridge."""
    command = ["xorriso", "-osirrox", "on", "-indev", str(iso), "-extract", "/", str(to)]
    subprocess.run(command, check=True, capture_output=True)
    files = (path for path in to.rglob("*") if path.is_file())
    return {str(path.relative_to(to)): path.read_bytes() for path in files}


def volume(iso: Path) -> tuple[str, set[str]]:
    """The label, and the names by Joliet, as isoinfo reads them: Windows goes by Joliet."""
    said = [
        subprocess.run(["isoinfo", *words, "-i", iso], check=True, capture_output=True, text=True)
        for words in (["-d"], ["-J", "-f"])
    ]
    label = next(line for line in said[0].stdout.splitlines() if line.startswith("Volume id:"))
    return label.removeprefix("Volume id: "), set(said[1].stdout.split("\n")) - {""}


@pytest.mark.parametrize("firmware", ["uefi", "bios"])
@pytest.mark.parametrize("compose", [compose_installation, compose_generalized])
def test_the_answers_have_the_form_that_setup_reads(
    compose: Callable[[WindowsAnswers], bytes], firmware: str
) -> None:
    document = compose(answers(firmware=firmware))
    # Another parser takes it too.
    subprocess.run(["xmllint", "--noout", "--nonet", "-"], input=document, check=True)
    root = etree.fromstring(document)
    assert root.tag == f"{{{NAMES['u']}}}unattend"
    passes = [str(one.get("pass")) for one in root]
    assert passes == sorted(passes, key=PASSES.index) and len(set(passes)) == len(passes)
    for settings in root:
        components = [str(one.get("name")) for one in settings]
        assert components and len(set(components)) == len(components)
        for component in settings:
            assert component.get("processorArchitecture") == "amd64"
            assert component.get("publicKeyToken") == "31bf3856ad364e35"
            assert component.get("versionScope") == "nonSxS"
    for element in root.iter():
        assert etree.QName(element).namespace == NAMES["u"], "Setup passes over other names"
        # What is numbered is numbered from 1, without a gap.
        orders = [one.findtext("u:Order", namespaces=NAMES) for one in element]
        if any(orders):
            assert orders == [str(number) for number in range(1, len(orders) + 1)]


def test_the_disk_is_for_the_firmware() -> None:
    parts = "//DiskConfiguration/Disk/CreatePartitions/CreatePartition"
    uefi, bios = (compose_installation(answers(firmware=one)) for one in ("uefi", "bios"))
    assert texts(uefi, f"{parts}/Type") == ["EFI", "MSR", "Primary"]
    assert texts(uefi, "//ModifyPartition/Format") == ["FAT32", "NTFS"]
    assert texts(uefi, "//InstallTo/PartitionID") == ["3"]
    assert texts(uefi, "//ModifyPartition/Active") == []
    assert texts(bios, f"{parts}/Type") == ["Primary", "Primary"]
    assert texts(bios, "//ModifyPartition/Active") == ["true"]
    assert texts(bios, "//InstallTo/PartitionID") == ["2"]
    for document in (uefi, bios):
        assert texts(document, "//Disk/WillWipeDisk") == ["true"]
        assert texts(document, f"{parts}/Extend") == ["true"], "the last takes all that is left"


def test_edition_licence_and_key() -> None:
    document = compose_installation(answers())
    assert texts(document, "//MetaData/Key") == ["/IMAGE/NAME"]
    assert texts(document, "//MetaData/Value") == [WANTED["edition"]]
    assert texts(document, "//UserData/AcceptEula") == ["true"]
    assert texts(document, "//ProductKey/Key") == []
    key = "VDYBN-27WPP-V4HQT-9VMD4-VMK7H"
    document = compose_installation(answers(edition=2, product_key=key))
    assert texts(document, "//MetaData/Key") == ["/IMAGE/INDEX"]
    assert texts(document, "//ProductKey/Key") == [key]
    assert texts(compose_generalized(answers()), "//SkipRearm") == ["1"]


def test_the_password_is_what_windows_decodes_and_is_not_left_in_the_image() -> None:
    document = compose_installation(answers())
    for name in ("AdministratorPassword", "Password"):
        (value,) = texts(document, f"//{name}/Value")
        assert base64.b64decode(value).decode("utf-16-le") == CANARY + name
    assert texts(document, "//AutoLogon/Username") == ["Administrator"]
    left = compose_generalized(answers())
    assert texts(left, "//Value") == [] and b"Password" not in left


def test_remote_access_network_and_power_are_answered() -> None:
    for document in (compose_installation(answers()), compose_generalized(answers())):
        assert texts(document, "//fDenyTSConnections") == ["false"]
        assert texts(document, "//UserAuthentication") == ["1"], "no screen before the login"
        assert texts(document, "//FirewallGroup/Group") == ["@FirewallAPI.dll,-28752"]
    document = compose_installation(answers(time_zone="W. Europe Standard Time"))
    commands = texts(document, "//RunSynchronousCommand/Path")
    assert any("NewNetworkWindowOff" in one for one in commands)
    assert any(one.startswith("powercfg /setactive") for one in commands)
    assert set(texts(document, "//TimeZone")) == {"W. Europe Standard Time"}
    assert texts(document, "//DriverPaths/PathAndCredentials/Path")[0] == r"D:\$WinPEDriver$"
    (first,) = texts(document, "//FirstLogonCommands/SynchronousCommand/CommandLine")
    assert first.count("prepare.ps1") == 2 and len(first) < 1024


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("accept_license", False),
        ("password", "short1A"),
        ("password", "onlysmallletters"),
        ("password", "Control\x00character1"),
        ("password", "x1A" + "x" * 130),
        ("edition", "a<b"),
        ("edition", 0),
        ("edition", ""),
        ("product_key", "AAAAA-AAAAA"),
        ("computer_name", "with space"),
        ("computer_name", "x" * 16),
        ("owner", 'x"; shutdown'),
        ("time_zone", "UTC</TimeZone>"),
        ("keyboard", "US"),
        ("drivers", "../w11"),
        ("update_server", "file:///x"),
        ("update_server", "http://x y"),
        ("firmware", "openfirmware"),
        ("unknown", 1),
    ],
)
def test_wrong_answers_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValidationError) as raised:
        answers(**{field: value})
    assert CANARY not in str(raised.value)
    assert field == "unknown" or raised.value.errors()[0]["loc"][0] == field


def test_the_answers_medium_by_other_tools(tmp_path: Path) -> None:
    iso = tmp_path / "answers.iso"
    with changes.collecting() as made:
        build_answers(iso, answers(updates=False, update_server="http://wsus:8530"))
        build_answers(iso, answers(updates=False, update_server="http://wsus:8530"))
    assert len(made) == 1, "twice is once"
    assert iso.stat().st_mode & 0o777 == 0o400, "it holds a password"
    label, names = volume(iso)
    assert label == ANSWERS_LABEL
    assert {"/Autounattend.xml", "/fifty/prepare.ps1", "/fifty/cloudbase-init.conf"} <= names
    files = extracted(iso, tmp_path / "out")
    assert files["Autounattend.xml"] == compose_installation(
        answers(updates=False, update_server="http://wsus:8530")
    )
    settings = json.loads(files["fifty/settings.json"])
    assert (settings["updates"], settings["update_server"]) == (False, "http://wsus:8530")
    script = files["fifty/prepare.ps1"]
    assert script.startswith(b"\xef\xbb\xbf") and b"\n" not in script.replace(b"\r\n", b"")
    # Each of the seed's points has its stage, in an order that works.
    lines = script.decode("utf-8-sig").splitlines()
    stages = [line.split("'")[1] for line in lines if line.startswith("$Stages['")]
    assert stages == [
        *("drivers", "remote desktop", "ssh server", "network", "power", "serial console"),
        *("cloudbase-init", "updates", "clean up", "free space", "logon"),
    ]
    assert b"'/generalize', '/oobe', '/shutdown'" in script


def test_cloudbase_init_looks_at_the_config_drive_alone(tmp_path: Path) -> None:
    build_answers(tmp_path / "answers.iso", answers())
    files = extracted(tmp_path / "answers.iso", tmp_path / "out")
    for name, reboots in (("cloudbase-init", "true"), ("cloudbase-init-unattend", "false")):
        config = configparser.ConfigParser()
        config.read_string(files[f"fifty/{name}.conf"].decode())
        said = config["DEFAULT"]
        assert said["metadata_services"].endswith(".configdrive.ConfigDriveService")
        assert said["allow_reboot"] == reboots
        plugins = said["plugins"].split(",")
        assert ("cloudbaseinit.plugins.common.userdata.UserDataPlugin" in plugins) == (
            name == "cloudbase-init"
        )
        assert "cloudbaseinit.plugins.windows.extendvolumes.ExtendVolumesPlugin" in plugins


@pytest.fixture
def virtio_win(tmp_path: Path) -> Path:
    """A medium laid out as virtio-win's, with two releases of Windows, by xorriso."""
    root = tmp_path / "virtio-win"
    for driver in (*NEEDED_DRIVERS, "Balloon"):
        for release in ("2k22", "w11"):
            for suffix in ("inf", "sys", "cat"):
                file = root / driver / release / "amd64" / f"{driver.lower()}.{suffix}"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(f"{driver} {release} {suffix}".encode() * 500)
    (root / "viostor" / "2k22" / "amd64" / "tools").mkdir()
    (root / "guest-agent").mkdir()
    (root / "guest-agent" / "qemu-ga-x86_64.msi").write_bytes(b"agent")
    iso = tmp_path / "virtio-win.iso"
    command = [
        "xorriso",
        "-as",
        "mkisofs",
        "-V",
        "virtio-win",
        "-J",
        "-r",
        "-o",
        str(iso),
        str(root),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return iso


def programs(tmp_path: Path) -> dict[str, Path]:
    msi = tmp_path / "CloudbaseInitSetup_x64.msi"
    msi.write_bytes(b"cloudbase" * 1000)
    return {"cloudbase-init.msi": msi}


def test_the_drivers_medium_has_one_release_and_the_programs(
    tmp_path: Path, virtio_win: Path
) -> None:
    iso = tmp_path / "drivers.iso"
    held = build_drivers(iso, virtio_win, "w11", programs(tmp_path))
    assert held == sorted((*NEEDED_DRIVERS, "Balloon"))
    label, names = volume(iso)
    assert label == DRIVERS_LABEL
    assert "/$WinPEDriver$/NetKVM/netkvm.inf" in names
    files = extracted(iso, tmp_path / "out")
    assert files["$WinPEDriver$/viostor/viostor.sys"] == b"viostor w11 sys" * 500
    assert files["programs/cloudbase-init.msi"] == b"cloudbase" * 1000
    assert files["programs/qemu-ga-x86_64.msi"] == b"agent"
    assert not any("2k22" in content.decode("latin-1") for content in files.values())
    assert not list(tmp_path.glob(".drivers-*")), "nothing is left of the copies"


def test_drivers_that_are_missing_are_named(tmp_path: Path, virtio_win: Path) -> None:
    iso = tmp_path / "drivers.iso"
    with pytest.raises(InvalidRequest, match="no driver viostor for 2k25") as raised:
        build_drivers(iso, virtio_win, "2k25", programs(tmp_path))
    assert raised.value.hint == "for viostor it has 2k22, w11"
    with pytest.raises(InvalidRequest, match=r"missing: cloudbase-init\.msi"):
        build_drivers(iso, virtio_win, "w11", {})
    with pytest.raises(InvalidRequest, match=r"unknown: evil\.exe"):
        build_drivers(iso, virtio_win, "w11", programs(tmp_path) | {"evil.exe": iso})
    gone = {"cloudbase-init.msi": tmp_path / "not-there.msi"}
    with pytest.raises(InvalidRequest, match=r"not-there\.msi cannot be read"):
        build_drivers(iso, virtio_win, "w11", gone)
    assert not iso.exists() and not list(tmp_path.glob("*.part")) + list(tmp_path.glob(".dr*"))


def test_a_medium_that_is_none_or_hostile_is_refused(tmp_path: Path, virtio_win: Path) -> None:
    bad = tmp_path / "bad.iso"
    whole = virtio_win.read_bytes()
    for content in (b"", b"no volume" * 10_000, whole[:40_000]):
        bad.write_bytes(content)
        with pytest.raises((UnsafeImage, InvalidRequest)):
            build_drivers(tmp_path / "drivers.iso", bad, "w11", programs(tmp_path))
    # A whole volume, with nothing in it.
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3)
    iso.write(str(bad))
    iso.close()
    with pytest.raises(InvalidRequest, match="no driver viostor"):
        build_drivers(tmp_path / "drivers.iso", bad, "w11", programs(tmp_path))
    assert not (tmp_path / "drivers.iso").exists()
