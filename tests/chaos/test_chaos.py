"""Chaos: whatever is asked for, killed and cancelled, in whatever order, nothing stays behind.

A random sequence of creates, deletes, resumes, rollbacks and networks, several at once, by
commands and by posted runs, with kills of commands, of runs and of the whole service, and with
cancels; then `fifty reconcile`, and every build is at one of its ends.

The seed is the commit's hash, so that each commit tries another sequence; the run's summary
tells it. Again with that one, or for longer:

    CHAOS_SEED=1234 CHAOS_SECONDS=600 tests/run tests/chaos
"""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from blocks.resources import Instance, InstanceStatus
from tests.chaos.monkey import NETWORKS, PREFIX, STEADY, Figures, Monkey
from tests.cloud import Cloud
from tests.inventory import differences
from tests.service.served import Served
from tests.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(3600)]

SECONDS = 300.0
#: How a build ends, and what its VM's status is then.
ENDS = {
    "complete": InstanceStatus.ACTIVE,
    "undone": InstanceStatus.ERROR,
    "kept": InstanceStatus.ERROR,
    "needs_attention": InstanceStatus.NEEDS_ATTENTION,
}
LOCKED = "database is locked"


def seed() -> int:
    """What was asked for, or the commit's."""
    asked = os.environ.get("CHAOS_SEED")
    if asked:
        return int(asked)
    here = Path(__file__).parent
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False
    )
    return int(head.stdout[:8] or "0", 16)


@pytest.fixture
def before(cloud: Cloud) -> Iterator[dict[str, list[str]]]:
    """The inventory before chaos' steady network was made; at the end all of chaos' are gone."""
    found = cloud.inventory()
    cloud.fifty("network", "create", STEADY, "--cidr", NETWORKS[STEADY])
    yield found
    cloud.delete(vm["id"] for vm in vms(cloud))
    delete_networks(cloud)


def delete_networks(cloud: Cloud) -> None:
    """Delete those of chaos' networks that are there."""
    for network in cloud.json("network", "list"):
        if network["name"] in NETWORKS:
            cloud.fifty("network", "delete", network["name"])


def vms(cloud: Cloud) -> list[dict[str, str]]:
    """Chaos' VMs."""
    return [vm for vm in cloud.json("vm", "list") if vm["name"].startswith(PREFIX)]


def all_at_an_end(cloud: Cloud) -> bool:
    """Reconcile; whether no build was stopped, and none is on its way."""
    found = cloud.json("reconcile", code=None)["reconciled"]
    return not found and not cloud.world.store.builds.unfinished()


def end_of(cloud: Cloud, instance: Instance) -> str:
    """Which of its ends a VM is at; checked on the VM itself."""
    state = cloud.world.store.builds.get(instance.id).state
    assert ENDS.get(state) is instance.status, f"{instance.name} is {state} and {instance.status}"
    if state == "complete":
        assert cloud.ssh(instance.id, "hostname").strip() == instance.name
    return state


def test_chaos(
    cloud: Cloud, before: dict[str, list[str]], served: Served, tmp_path: Path, figures: Figures
) -> None:
    log = cloud.home / "logs" / "prefect-server.log"
    quiet = log.stat().st_size
    figures.seed, figures.seconds = seed(), float(os.environ.get("CHAOS_SECONDS", SECONDS))

    monkey = Monkey(cloud, served, tmp_path, figures)
    monkey.rage(figures.seed, figures.seconds)
    monkey.finish()
    assert served.stop() == 0, served.log.read_text()
    eventually(lambda: all_at_an_end(cloud), "end of all builds", 900)

    store = cloud.world.store
    instances = [store.instances.get(vm["id"]) for vm in vms(cloud)]
    with ThreadPoolExecutor(4) as pool:
        figures.ends = Counter(pool.map(lambda instance: end_of(cloud, instance), instances))
    figures.ends["deleted"] = sum(
        instance.name.startswith(PREFIX) and instance.status is InstanceStatus.DELETED
        for instance in store.instances.list(deleted=True)
    )
    audit = cloud.json("audit", code=None)
    assert audit == {**audit, "clean": True, "astray": []}
    cloud.fifty("audit")

    said = [file.read_text() for file in tmp_path.glob("*")]
    with log.open() as server:
        server.seek(quiet)
        said += [server.read(), served.log.read_text()]
    assert not [text for text in said if LOCKED in text]

    cloud.delete(instance.id for instance in instances)
    # The steady one, too: while a port of another network is there, its zone is in the tables.
    delete_networks(cloud)
    assert differences(before, cloud.inventory()) == []
