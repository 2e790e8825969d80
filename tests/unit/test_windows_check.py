"""The static check of a Windows: hives made by the test, broken point by point."""

from __future__ import annotations

import random
import subprocess
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from blocks.errors import UnsafeImage
from blocks.images.check.report import Finding, Verdict
from blocks.windows.check import WANTED, look_at_windows
from blocks.windows.disk import WindowsFiles
from blocks.windows.hives import Hive
from tests.hives import Key, hive

LOADER = "{9dea862c-5cdd-4e70-acc1-f32b344d4795}"
INTERFACE = "{0e0e0e0e-1111-2222-3333-444444444444}"
CONF = (
    "[DEFAULT]\r\nmetadata_services="
    "cloudbaseinit.metadata.services.configdrive.ConfigDriveService\r\n"
)
Hives = dict[str, dict[str, Any]]


def whole() -> Hives:
    """The hives of an image as it should be; `ControlSet002` is the current one."""
    services = {
        "viostor": {"Start": 0, "Group": "SCSI miniport"},
        "netkvm": {"Start": 3},
        "TermService": {"Start": 3},
        "sshd": {"Start": 2},
        "cloudbase-init": {"Start": 2},
        "Tcpip": {"Parameters": {"Interfaces": {INTERFACE: {"EnableDHCP": 1}}}},
    }
    control: dict[str, Any] = {
        "Terminal Server": {"fDenyTSConnections": 0},
        "Network": {"NewNetworkWindowOff": {}},
        "Power": {
            "HibernateEnabled": 0,
            "User": {"PowerSchemes": {"ActivePowerScheme": "8C5E7FDA-e8bf-4a96-9a85-a6e23a8c635c"}},
        },
    }
    winlogon: dict[str, Any] = {"AutoAdminLogon": "0"}
    return {
        "SYSTEM": {
            "Select": {"Current": 2, "Default": 1},
            "ControlSet001": {"Services": {}},
            "ControlSet002": {"Services": services, "Control": control},
        },
        "SOFTWARE": {
            "Microsoft": {
                "Windows NT": {
                    "CurrentVersion": {
                        "ProductName": "Windows Server 2022 Standard",
                        "CurrentBuild": "20348",
                        "EditionID": "ServerStandard",
                        "UBR": 2700,
                        "Winlogon": winlogon,
                    }
                },
                "Windows": {
                    "CurrentVersion": {
                        "Setup": {"State": {"ImageState": "IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE"}}
                    }
                },
            }
        },
        "BCD": {"Objects": {LOADER: {"Elements": {"260000b0": {"Element": b"\x01"}}}}},
    }


def looked(folder: Path, hives: Hives, conf: str | None = CONF) -> dict[str, Finding]:
    """What the check finds in these hives, by the points' names."""
    found = {}
    for name, content in hives.items():
        path = folder / name
        path.write_bytes(hive(content))
        found[name] = Hive(path)
    texts = {WANTED[0]: conf} if conf is not None else {}
    return {one.point: one for one in look_at_windows(WindowsFiles(found, texts, 1))}


def test_the_hives_are_hives_to_another_program(tmp_path: Path) -> None:
    (tmp_path / "SYSTEM").write_bytes(hive(whole()["SYSTEM"]))
    script = "cd \\ControlSet002\\Services\\viostor\nlsval\ncd \\\nls\n"
    said = subprocess.run(
        ["hivexsh", tmp_path / "SYSTEM"], input=script, capture_output=True, text=True, check=True
    )
    assert said.stdout.splitlines() == [
        *('"Start"=dword:00000000', '"Group"="SCSI miniport"'),
        *("ControlSet001", "ControlSet002", "Select"),
    ]


def test_an_image_as_it_should_be_passes_every_point(tmp_path: Path) -> None:
    findings = looked(tmp_path, whole())
    assert {name: one.verdict for name, one in findings.items()} == dict.fromkeys(
        findings, Verdict.PASS
    )
    assert len(findings) == 12
    assert findings["windows"].evidence == ("Windows Server 2022 Standard, build 20348",)
    assert findings["virtio-disk"].evidence == ("Services\\viostor: Start 0",)
    assert findings["passwords"].evidence == ("nothing in Winlogon",)


#: Point, verdict, what is changed (hive, path in it, value; None: removed), part of the evidence.
BREAKS: list[tuple[str, str, str, str, Any, str]] = [
    ("windows", "fail", "SOFTWARE", "Microsoft/Windows NT/CurrentVersion/ProductName", None,
     "no Prod"),
    ("windows", "warn", "SOFTWARE", "Microsoft/Windows NT/CurrentVersion/EditionID",
     "ServerStandardEval", "ServerStandardEval"),
    ("virtio-disk", "fail", "SYSTEM", "ControlSet002/Services/viostor", None, "is not there"),
    ("virtio-disk", "fail", "SYSTEM", "ControlSet002/Services/viostor/Start", 3, "not start at"),
    ("virtio-network", "fail", "SYSTEM", "ControlSet002/Services/netkvm", None, "not there"),
    ("virtio-network", "fail", "SYSTEM", "ControlSet002/Services/netkvm/Start", 4, "Start 4"),
    ("remote-desktop", "fail", "SYSTEM", "ControlSet002/Control/Terminal Server", None, "None"),
    ("remote-desktop", "fail", "SYSTEM",
     "ControlSet002/Control/Terminal Server/fDenyTSConnections", 1, "fDenyTSConnections 1"),
    ("remote-desktop", "fail", "SYSTEM", "ControlSet002/Services/TermService/Start", 4, "TermS"),
    ("ssh-server", "fail", "SYSTEM", "ControlSet002/Services/sshd", None, "no service sshd"),
    ("ssh-server", "fail", "SYSTEM", "ControlSet002/Services/sshd/Start", 3, "Start 3"),
    ("cloudbase-init", "fail", "SYSTEM", "ControlSet002/Services/cloudbase-init", None, "no serv"),
    ("serial-console", "warn", "BCD", f"Objects/{LOADER}/Elements/260000b0/Element", b"\x00",
     "EMS is off"),
    ("serial-console", "warn", "BCD", "Objects", None, "EMS is off"),
    ("updates", "unknown", "SOFTWARE", "Microsoft/Windows NT/CurrentVersion/UBR", None, "neither"),
    ("network", "warn", "SYSTEM", "ControlSet002/Control/Network/NewNetworkWindowOff", None, "Off"),
    ("network", "fail", "SYSTEM",
     f"ControlSet002/Services/Tcpip/Parameters/Interfaces/{INTERFACE}",
     {"EnableDHCP": 0, "IPAddress": ["10.9.8.7"]}, "fixed address 10.9.8.7"),
    ("power", "warn", "SYSTEM", "ControlSet002/Control/Power/User", None, "power plan is None"),
    ("power", "warn", "SYSTEM", "ControlSet002/Control/Power/HibernateEnabled", 1, "hibernation"),
    ("generalized", "fail", "SOFTWARE", "Microsoft/Windows/CurrentVersion/Setup/State/ImageState",
     "IMAGE_STATE_COMPLETE", "IMAGE_STATE_COMPLETE"),
    ("passwords", "fail", "SOFTWARE",
     "Microsoft/Windows NT/CurrentVersion/Winlogon/DefaultPassword", "S3cr3t", "DefaultPassword"),
    ("passwords", "fail", "SOFTWARE",
     "Microsoft/Windows NT/CurrentVersion/Winlogon/AutoAdminLogon", "1", "AutoAdminLogon 1"),
]  # fmt: skip


@pytest.mark.parametrize(("point", "verdict", "name", "path", "value", "words"), BREAKS)
def test_what_is_broken_fails_its_own_point_alone(
    tmp_path: Path, point: str, verdict: str, name: str, path: str, value: object, words: str
) -> None:
    hives = deepcopy(whole())
    *folders, last = path.split("/")
    into = hives[name]
    for folder in folders:
        into = into[folder]
    if value is None:
        del into[last]
    else:
        into[last] = value
    findings = looked(tmp_path, hives)
    wrong = {one.point: one for one in findings.values() if one.verdict is not Verdict.PASS}
    assert {one: wrong[one].verdict.value for one in wrong} == {point: verdict}
    assert words in " ".join(wrong[point].evidence)
    assert wrong[point].hint
    assert "S3cr3t" not in str(findings), "a password is not told"


def test_every_point_is_broken_by_some_test(tmp_path: Path) -> None:
    assert {entry[0] for entry in BREAKS} == set(looked(tmp_path, whole()))


def test_cloudbase_init_that_does_not_look_at_the_config_drive(tmp_path: Path) -> None:
    for conf, verdict in (
        (None, Verdict.FAIL),
        ("metadata_services=a.httpservice.HttpService\n", Verdict.FAIL),
        ("[DEFAULT]\nusername=Admin\n", Verdict.PASS),
    ):
        assert looked(tmp_path, whole(), conf)["cloudbase-init"].verdict is verdict


def test_a_boot_store_on_an_efi_partition_is_unknown(tmp_path: Path) -> None:
    hives = whole()
    del hives["BCD"]
    assert looked(tmp_path, hives)["serial-console"].verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("current", [None, 0, 70000, "1"])
def test_a_hive_without_a_current_control_set_is_refused(tmp_path: Path, current: object) -> None:
    hives = whole()
    hives["SYSTEM"]["Select"] = {} if current is None else {"Current": current}
    if current == "1":
        # hivexsh tells a text as it tells a number: it is the number that counts.
        hives["SYSTEM"]["Select"] = {"Current": "one"}
    with pytest.raises(UnsafeImage, match="no current control set"):
        looked(tmp_path, hives)


def test_names_that_could_be_commands_are_passed_over(tmp_path: Path) -> None:
    hostile: Key = {"a\nsetval 1": {}, "!cat /etc/passwd": {}, "{plain-1}": {}, "b\\c": {}}
    path = tmp_path / "hive"
    path.write_bytes(hive({"Keys": hostile, "x": "y"}))
    # (What is after the line end of the first name is a name of its own to us, and is there not.)
    assert set(Hive(path).keys("Keys")) - {"a", "setval 1"} == {"{plain-1}"}
    with pytest.raises(ValueError, match="is not asked for"):
        Hive(path).text("Keys\nexit", "x")
    assert Hive(path).text("Nowhere", "x") is None


def test_damaged_hives_are_refused_or_read_in_bounded_time(tmp_path: Path) -> None:
    """A bounded fuzz of the format: nothing but a value, nothing, or `UnsafeImage`."""
    source = random.Random(6)  # noqa: S311 - to be the same at every run
    content = hive(whole()["SYSTEM"])
    path = tmp_path / "hive"
    outcomes = {"read": 0, "refused": 0}
    for _ in range(60):
        damaged = bytearray(content)
        for _ in range(source.randint(1, 12)):
            damaged[source.randrange(4, len(damaged))] = source.randrange(256)
        path.write_bytes(damaged[: source.choice([len(damaged), source.randrange(len(damaged))])])
        try:
            Hive(path).text("ControlSet002\\Services\\viostor", "Start")
            outcomes["read"] += 1
        except UnsafeImage:
            outcomes["refused"] += 1
    assert outcomes["refused"] > 10, outcomes
    path.write_bytes(b"no hive")
    with pytest.raises(UnsafeImage, match="registry hive is none"):
        Hive(path)
