"""A VM of an encrypted image: it boots, and nothing on the host can be read without the key."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from blocks.hypervisor import LibvirtHost
from blocks.hypervisor.secrets import secret_id
from tests.cloud import Cloud
from tests.inventory import differences

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

PASSPHRASE = "correct horse, battery='staple'"
#: Written by the guest.
CANARY = "canary-7c1e2f90-canary"
SECRET = "disk-passphrase"


def save_secret() -> None:
    """Save the passphrase as a block, as a person does in the Prefect UI."""
    code = (
        "import sys; from prefect.blocks.system import Secret;"
        "Secret(value=sys.argv[2]).save(sys.argv[1], overwrite=True)"
    )
    subprocess.run([sys.executable, "-c", code, SECRET, PASSPHRASE], check=True)


def secrets() -> str:
    words = ["virsh", "-q", "-c", "qemu:///system", "secret-list"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def holds(path: Path, text: str) -> bool:
    done = subprocess.run(["grep", "-aqF", text, path], check=False)
    assert done.returncode in (0, 1)
    return done.returncode == 0


def require_found_when_killed(cloud: Cloud, known: str) -> None:
    instance, store = cloud.instance("safe"), cloud.world.store
    code = (
        "import os, signal, sys; from blocks.hypervisor import LibvirtHost\n"
        "with LibvirtHost(site=sys.argv[1]).passphrases.told(sys.argv[2], 'a passphrase'):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    for site in ("ffff", store.site):
        killed = subprocess.run([sys.executable, "-c", code, site, instance.id], check=False)
        assert killed.returncode == -signal.SIGKILL
        assert secret_id(instance.id) in secrets()
        if site != store.site:
            # Another site's is none of ours.
            assert cloud.json("audit")["clean"]
            LibvirtHost(site=site).passphrases.forget(instance.id)
    [found] = cloud.json("audit", code=3)["astray"]
    assert (found["kind"], found["owner"]) == ("passphrase", instance.id)
    # While something works on the VM it may be known.
    token = store.leases.acquire(instance.id, "test")
    try:
        assert cloud.json("audit")["clean"]
    finally:
        store.leases.release(instance.id, token)
    assert cloud.json("audit", "--fix", code=4)["removed"] == [f"passphrase {found['name']}"]
    assert secrets() == known
    assert cloud.json("audit")["clean"]


def test_it_boots_and_the_host_holds_nothing_in_clear(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIFTY_AUDIT_GRACE", "0")
    before = cloud.inventory()
    save_secret()
    [micro] = [one for one in cloud.json("image", "list") if one["name"] == "micro"]
    # What is in the store cannot be imported: it is ours. A copy of it can.
    copy = cloud.home.parent / "micro.qcow2"
    copy.write_bytes(Path(micro["path"]).read_bytes())
    words = ("--passphrase-secret", SECRET, "--login-user", micro["login_user"])
    image = cloud.json("image", "import", "locked", str(copy), *words)
    copy.unlink()
    assert image["encrypted"]
    known = secrets()
    try:
        cloud.fifty(
            "vm", "create", "safe", "--image", "locked", "--flavor", "tiny", "--network", "lab"
        )
        cloud.ssh("safe", f"for i in $(seq 100); do echo {CANARY}; done > /root/canary; sync")
        assert secrets() == known
        path = cloud.home / "instances" / cloud.instance("safe").id / "disk.qcow2"
        assert not holds(path, CANARY)
        told = ["qemu-img", "info", "-U", "--output=json", "-f", "qcow2", str(path)]
        seen = json.loads(subprocess.run(told, check=True, capture_output=True).stdout)
        assert seen["encrypted"]
        # Off and on again: libvirt is told the passphrase anew.
        name = f"fifty-{cloud.instance('safe').id[:8]}-safe"
        subprocess.run(["virsh", "-c", "qemu:///system", "destroy", name], check=True)
        cloud.fifty("vm", "start", "safe")
        assert CANARY in cloud.ssh("safe", "cat /root/canary")
        assert secrets() == known
        # What a process knew that was killed while a VM started is found, and removed.
        require_found_when_killed(cloud, known)
        # Nowhere else either: not in the state store, nor in a log or a checkpoint.
        for path in cloud.home.rglob("*"):
            if path.is_file() and "cache" not in path.parts:
                assert not holds(path, PASSPHRASE), path
    finally:
        cloud.delete(one["id"] for one in cloud.json("vm", "list") if one["name"] == "safe")
        cloud.fifty("image", "delete", "locked")
    assert differences(before, cloud.inventory()) == []
