"""What an image asks of its VMs' machine, and which hosts can be asked for it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from blocks.errors import Unsupported
from blocks.hypervisor.wishes import Wishes, lacking, of_installed, wishes_of
from blocks.resources import Flavor, Host, Image
from tasks.placement import Demand, apply_filters

NOW = datetime(2026, 1, 2, tzinfo=UTC)
ALL = {
    "architectures": ["x86_64"],
    "firmwares": ["bios", "efi"],
    "disk_buses": ["sata", "virtio"],
    "tpm": True,
}


def image(os: str = "linux", **properties: str) -> Image:
    values: dict[str, Any] = {
        **{"id": "i1", "tenant_id": None, "name": "server", "format": "qcow2"},
        **{"sha256": "0" * 64, "size_bytes": 1, "virtual_size_bytes": 1, "path": "/nowhere"},
    }
    return Image.model_validate({**values, "os": os, "properties": properties})


def refused(wanted: Image, features: dict[str, Any]) -> list[str]:
    """Why the only host is refused."""
    host = Host(name="h", vcpus=8, ram_mib=8192, disk_gib=100, heartbeat_at=NOW, features=features)
    flavor = Flavor(name="tiny", vcpus=1, ram_mib=256, disk_gib=1)
    demand = Demand(flavor, wanted, 1, None, None, frozenset(), frozenset(), NOW)
    return apply_filters([host], demand).refused


def test_an_image_that_says_nothing_asks_for_nothing() -> None:
    assert wishes_of(image()) == Wishes()
    assert wishes_of(image(os="debian", purpose="tests")) == Wishes()
    assert wishes_of(image(os="windows")) == Wishes(system="windows")
    assert Wishes().properties == {}


def test_what_was_installed_asks_for_the_machine_of_its_installer() -> None:
    installed = of_installed("windows", "uefi", virtio=False)
    assert installed.properties == {
        "hw_firmware_type": "uefi",
        "hw_disk_bus": "sata",
        "hw_vif_model": "e1000e",
    }
    assert wishes_of(image(os="windows", **installed.properties)) == installed
    assert of_installed("linux", "bios", virtio=True) == Wishes()
    assert wishes_of(image(hw_tpm_version="2.0")) == Wishes(tpm=True)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("hw_disk_bus", "ide"),
        ("hw_firmware_type", "UEFI"),
        ("hw_vif_model", ""),
        ("hw_tpm_version", "1.2"),
    ],
)
def test_a_word_that_nobody_knows_is_told_with_those_that_are(name: str, word: str) -> None:
    with pytest.raises(Unsupported, match=f"server asks for {name}={word}, which is none of") as e:
        wishes_of(image(**{name: word}))
    assert f"--property {name}=" in (e.value.hint or "")
    [line] = refused(image(**{name: word}), ALL)
    assert line.startswith(f"h: image properties: server asks for {name}={word}, which is none of")


def test_a_host_is_refused_for_all_that_it_lacks() -> None:
    wanted = image(hw_firmware_type="uefi", hw_disk_bus="sata", hw_tpm_version="2.0")
    assert refused(wanted, ALL) == []
    none = {**ALL, "firmwares": ["bios"], "disk_buses": ["virtio"], "tpm": False}
    told = "h: image properties: it lacks UEFI firmware (ovmf), SATA drives, a TPM (swtpm)"
    assert refused(wanted, none) == [told]
    assert refused(image(), none) == []
    assert refused(image(os="windows"), none) == [], "Windows has a TPM where there is one"
    # A host of the version before tells nothing of it; it is asked in step 24.
    assert refused(wanted, {"architectures": ["x86_64"]}) == []
    assert lacking(Wishes(), ["bios"], ["sata"], tpm=True) == ["virtio drives"]
