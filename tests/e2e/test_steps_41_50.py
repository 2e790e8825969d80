"""Steps 41 to 50, each by what libvirt, the kernel and the guest say."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from prefect.client.orchestration import get_client
from prefect.events.filters import EventFilter, EventNameFilter

from blocks.marks import DOMAIN_METADATA_URI
from tests.cloud import Cloud
from tests.waiting import eventually

pytestmark = pytest.mark.e2e

NAME = "specimen"


def _virsh(*words: str) -> str:
    return subprocess.run(
        ["virsh", "-q", "-c", "qemu:///system", *words], capture_output=True, text=True, check=True
    ).stdout


def _xml(cloud: Cloud) -> ET.Element:
    return ET.fromstring(_virsh("dumpxml", cloud.instance(NAME).id))  # noqa: S314


def test_41_the_composed_xml_is_kept_and_another_tool_finds_it_valid(
    specimen: Cloud, tmp_path: Path
) -> None:
    file = tmp_path / "domain.xml"
    file.write_text(specimen.build(NAME).plan["xml"])
    done = subprocess.run(
        ["virt-xml-validate", str(file), "domain"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_42_the_domain_is_defined_and_carries_our_mark(specimen: Cloud) -> None:
    xml = _xml(specimen)
    assert xml.findtext("uuid") == specimen.instance(NAME).id
    marks = ET.tostring(xml.find("metadata"), encoding="unicode")  # type: ignore[arg-type]
    assert DOMAIN_METADATA_URI in marks
    assert specimen.world.site in marks
    assert specimen.instance(NAME).id in _virsh("list", "--all", "--uuid", "--persistent")


def test_43_libvirt_enforces_the_flavors_limits(specimen: Cloud) -> None:
    domain = specimen.instance(NAME).id
    assert re.search(r"cpu_shares\s*:\s*512", _virsh("schedinfo", domain))
    assert re.search(r"total_iops_sec\s*:\s*5000", _virsh("blkdeviotune", domain, "vda"))


def test_44_the_guest_is_a_running_process(specimen: Cloud) -> None:
    assert _virsh("domstate", specimen.instance(NAME).id).strip() == "running"


def test_45_qemu_holds_every_tap(specimen: Cloud) -> None:
    for port in specimen.ports(NAME):
        assert Path(f"/sys/class/net/{port.tap}/carrier").read_text().strip() == "1"


def test_46_the_guests_clock_goes_on(specimen: Cloud) -> None:
    first, second = (float(specimen.ssh(NAME, "cat /proc/uptime").split()[0]) for _ in range(2))
    assert second > first


def test_47_the_console_log_holds_the_boot(specimen: Cloud) -> None:
    log = specimen.home / "instances" / specimen.instance(NAME).id / "console.log"
    text = log.read_text(errors="replace")
    assert text.index("FIFTY-MARK init") < text.index("FIFTY-MARK ready")
    assert "FIFTY-MARK ready" in specimen.fifty("vm", "console", NAME)


def test_48_the_guest_answers_from_its_network(specimen: Cloud) -> None:
    mac = specimen.ports(NAME)[0].mac or ""
    said = specimen.in_network(NAME, "arping", "-c", "1", "-w", "5", "10.77.1.77")
    assert mac.upper() in said.upper()
    assert re.search(r"inet 10\.77\.2\.\d+/24", specimen.ssh(NAME, "ip -4 address show dev eth1"))


def test_49_the_guest_had_run_its_user_data_when_it_was_ready(specimen: Cloud) -> None:
    assert specimen.ssh(NAME, "cat /root/user-data-ran").strip() == "ran"
    assert specimen.ssh(NAME, "hostname").strip() == NAME


def test_50_the_instance_is_active_and_told_of(specimen: Cloud) -> None:
    document = specimen.json("vm", "show", NAME)
    assert document["status"] == "ACTIVE"
    clocks = document["clocks"]
    assert 0 < clocks["running_s"] <= clocks["booted_s"] <= clocks["login_s"]
    held = specimen.world.store.quota.held(document["id"])
    assert all(committed for _amount, committed in held.values())

    def told() -> bool:
        with get_client(sync_client=True) as client:
            events = client.read_events(
                EventFilter(event=EventNameFilter(name=["fifty.vm.active"])), limit=50
            ).events
        return f"fifty.vm.{document['id']}" in [event.resource.id for event in events]

    eventually(told, "event of the VM that is active")
