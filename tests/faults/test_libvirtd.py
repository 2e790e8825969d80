"""libvirtd restarted, and gone, while VMs are built, deleted and undone."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from blocks.hypervisor.connection import START_HINT
from tests.cloud import Cloud
from tests.faults.building import Building, begun, failed_once, is_done, undo_failed
from tests.faults.private_libvirt import PrivateLibvirt
from tests.inventory import differences

pytestmark = pytest.mark.e2e

CREATE = ("vm", "create", "--image", "micro", "--network", "lab")
STRANDED = {"42", "44"}


def test_builds_and_deletes_outlive_restarts_of_libvirtd(
    cloud: Cloud, private: PrivateLibvirt
) -> None:
    before = cloud.inventory()
    with Building(cloud, "patient", *CREATE, "patient") as build:
        # Between 24, which asks libvirt what it can, and 41 nothing needs it.
        build.until(range(24, 25), is_done)
        private.stop(signal.SIGKILL)
        first = build.until(range(41, 45), failed_once)
        private.start()
        build.until(range(47, 48), begun)
        [domain] = private.domains()
        qemu = private.qemu(domain)
        private.stop(signal.SIGTERM)
        build.until(range(47, 50), failed_once)
        private.start()
        document = build.end(0)
    assert document["status"] == "ACTIVE"
    assert private.qemu(domain) == qemu, "the guest was not to be restarted"
    assert cloud.ssh("patient", "hostname").strip() == "patient"
    journal = cloud.journal(cloud.build("patient"))
    tried_again = {number for number, entry in journal.items() if entry.attempts > 1}
    assert first.step in tried_again
    assert tried_again - {first.step} <= {41, 42, 43, 44, 47, 48, 49}

    private.stop(signal.SIGKILL)
    with Building(cloud, "patient", "vm", "delete", "patient") as delete:
        delete.until(range(42, 45), undo_failed)
        private.start()
        delete.end(0)
    assert private.domains() == []
    assert differences(before, cloud.inventory()) == []


def test_without_libvirtd_a_build_is_refused_or_left_for_a_rollback(
    cloud: Cloud, private: PrivateLibvirt, tmp_path: Path
) -> None:
    # A guest that gets ready is let in without libvirt: this one never does.
    endless = tmp_path / "endless"
    endless.write_text("#!/bin/sh\nexec sleep 1000000\n")
    before = cloud.inventory()
    words = (*CREATE, "stranded", "--user-data", str(endless))
    with Building(cloud, "stranded", *words) as build:
        build.until(range(47, 48), begun)
        private.stop(signal.SIGKILL)
        with ThreadPoolExecutor(2) as pool:
            refusal = pool.submit(cloud.json, *CREATE, "refused", code=1)
            audit = pool.submit(cloud.json, "audit", code=1)
            fault = build.end(1)
    # Stopped before there was anything to undo on the host.
    assert (refusal.result()["error"], refusal.result()["step"]) == ("HostFault", 12)
    assert "Failed to connect socket" in refusal.result()["message"]
    assert refusal.result()["hint"] == audit.result()["hint"] == START_HINT
    assert cloud.json("vm", "show", "refused")["status"] == "ERROR"

    # Its QEMU runs on, and cannot be stopped now: that is told, and nothing else is left.
    assert fault["error"] == "NeedsAttention"
    assert "HostFault" in fault["message"] and "Failed to connect socket" in fault["message"]
    assert {line.split()[1] for line in fault["details"]} == STRANDED
    assert cloud.json("vm", "show", "stranded")["status"] == "NEEDS_ATTENTION"
    [process] = differences(before, cloud.inventory())
    assert process.startswith("processes: + ") and "qemu-system" in process

    private.start()
    assert len(private.domains()) == 1
    cloud.fifty("vm", "rollback", "stranded")
    assert cloud.json("vm", "show", "stranded")["status"] == "ERROR"
    assert private.domains() == []
    assert differences(before, cloud.inventory()) == []
