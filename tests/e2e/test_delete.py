"""`fifty vm delete`: killed at any point, twice, two at once, in a build, after every end."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from blocks.state import StepState
from flows.plans import PLANS
from tests.cloud import Cloud
from tests.forked import forked
from tests.inventory import differences

pytestmark = pytest.mark.e2e

CREATE = ("--image", "micro", "--flavor", "tiny", "--network", "lab")
#: A VM whose guest runs, and that nobody waited for: everything that can be undone is there.
WHOLE = (*CREATE, "--network", "side", "--volume", "1", "--on-failure", "keep")


def test_a_delete_that_is_killed_at_every_point_is_finished_by_reconcile(cloud: Cloud) -> None:
    before = cloud.inventory()
    cloud.fifty("vm", "create", "killed", *WHOLE, fault="47:raise", code=1)
    build = cloud.build("killed")
    kind, _plan = PLANS["vm"]
    undos = [step.number for step in kind.catalogue.steps.values() if step.undo]
    assert len(undos) > 20
    words: tuple[str, ...] = ("vm", "delete", "killed")
    with forked(cloud) as quick:
        for number in reversed(undos):
            for fault in (f"u{number}:kill", f"u{number}:kill:after"):
                assert quick.run(*words, fault=fault).returncode == -signal.SIGKILL, fault
                # That one it was, and none before it.
                states = {step: entry.state for step, entry in cloud.journal(build).items()}
                assert states[number] is StepState.UNDOING, fault
                assert {states[other] for other in undos if other > number} <= {StepState.UNDONE}
                assert cloud.world.store.builds.get(build.id).state == "deleting"
                # From now on by reconcile: each goes on where the one before was killed.
                words = ("reconcile",)
        quick.fifty("reconcile")
    assert cloud.world.store.builds.get(build.id).state == "deleted"
    assert differences(before, cloud.inventory()) == []
    assert cloud.json("reconcile")["reconciled"] == []


def test_two_deletes_at_once_and_one_after_are_one(cloud: Cloud) -> None:
    before = cloud.inventory()
    cloud.fifty("vm", "create", "twice", *WHOLE, fault="47:raise", code=1)
    the_id = cloud.instance("twice").id
    with ThreadPoolExecutor(2) as pool:
        ran = list(pool.map(lambda _turn: cloud.run("vm", "delete", the_id), range(2)))
    assert [done.returncode for done in ran] == [0, 0], "\n".join(done.stderr for done in ran)
    assert cloud.json("vm", "delete", the_id)["build_state"] == "deleted"
    assert differences(before, cloud.inventory()) == []


def test_a_delete_ends_every_end_of_a_build(cloud: Cloud) -> None:
    before = cloud.inventory()
    cloud.fifty("vm", "create", "kept", *CREATE, "--on-failure", "keep", fault="27:raise", code=1)
    cloud.fifty("vm", "create", "attention", *CREATE, fault="38:raise,u36:raise", code=1)
    assert cloud.json("vm", "show", "attention")["status"] == "NEEDS_ATTENTION"
    cloud.fifty("vm", "create", "undone", *CREATE, fault="18:raise", code=1)
    killed = cloud.run("vm", "create", "hardly-begun", *CREATE, fault="1:kill")
    assert killed.returncode == -signal.SIGKILL
    assert cloud.run("vm", "create", "half", *CREATE, fault="34:kill").returncode == -9
    cloud.fifty("vm", "create", "refused", *CREATE, "--fixed-ip", "10.99.0.1", code=1)
    names = ("kept", "attention", "undone", "hardly-begun", "half", "refused")

    # The third one fails, and keeps none of the others from being deleted.
    told = cloud.json("vm", "delete", "kept", "no-such-vm", "half", code=1)
    assert [document.get("error") for document in told] == [None, "NotFound", None]
    failed = cloud.json("vm", "delete", "attention", "undone", fault="u36:raise", code=1)
    assert [document.get("error") for document in failed] == ["NeedsAttention", None]
    for name in names:
        assert cloud.json("vm", "delete", name)["build_state"] == "deleted", name
    assert differences(before, cloud.inventory()) == []
    assert not {vm["name"] for vm in cloud.json("vm", "list")} & set(names)
