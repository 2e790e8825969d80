"""`./deployments/quickstart` on a fresh machine: up, up again, down; and stopped in the middle."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments import daemons, prefect_server
from tests import packages
from tests.cloud import Cloud
from tests.e2e.fresh_machine import PROJECT, FreshMachine

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

QUICKSTART = PROJECT / "deployments" / "quickstart"


@pytest.fixture
def home(session_directory: Path, site_cloud: Cloud) -> Iterator[Path]:
    """A FIFTY_HOME without anything but the packages of `micro`: that machine has no mirror."""
    home = session_directory / "quickstart"
    daemons.prepare_home(home)
    packages.give(site_cloud.home / "images" / "packages" / "archives", home)
    yield home
    shutil.rmtree(home, ignore_errors=True)


def test_up_killed_and_gone_on_with_up_again_and_down(home: Path) -> None:
    with FreshMachine(home) as machine:
        before = machine.inventory()
        machine.run(QUICKSTART, code=1, variables={"FIFTY_FAULT": "30:kill:after"})
        said = machine.run(QUICKSTART)
        assert "✔ 29 ·" not in said, "a finished step was done again"
        assert "✔ 50 · Activate the instance" in said
        assert "Linux hello " in said, "not the guest's own uname"
        assert " 192.168.50." in said, "not the guest's own address"
        assert "/dev/vda1" in said, "not the guest's own disk"
        assert machine.run("stat", "-c", "%G %a", "/dev/kvm") == "kvm 660\n"
        address = prefect_server.recorded(home)
        assert address is not None
        assert f"{address.ui_url}  the Prefect UI" in said
        assert f"FIFTY_HOME={home} ./deployments/quickstart --down" in said
        service = machine.fifty("serve", "--status")
        assert isinstance(service, dict)
        assert service["worker"]["ready"] is True
        assert "/fifty serve --status" in said
        up = machine.inventory()
        assert any(line.endswith("/fifty serve") for line in up)
        assert {line.split()[0] for line in up} > {"link", "namespace", "table", "process"}
        assert any("virtlogd" in line for line in up)

        again = machine.run(QUICKSTART)
        assert "hello runs already" in again
        assert "Started" not in again
        assert "Linux hello " in again
        assert machine.inventory() == up

        # The server dies: deleting is a flow as well, and --down starts it once more.
        machine.run("kill", "-KILL", _pid_of_server(machine))
        said = machine.run(QUICKSTART, "--down")
        assert "Deleted vm hello" in said
        after = machine.inventory()
    assert after == without(home, before)


def test_down_after_a_build_that_was_killed(home: Path) -> None:
    """With an Open vSwitch of our own, which goes with the last of what it holds."""
    with FreshMachine(home) as machine:
        before = machine.inventory()
        asked = {"FIFTY_FAULT": "44:kill:after", "FIFTY_OPENVSWITCH": "own"}
        said = machine.run(QUICKSTART, code=1, variables=asked)
        assert "was killed" in said
        assert "run it again" in said
        machine.fifty("network", "create", "far", "--type", "gre", "--cidr", "192.168.60.0/24")
        up = machine.inventory()
        assert any("qemu-system" in line for line in up)
        assert any("ovs-vswitchd" in line for line in up)
        machine.run(QUICKSTART, "--down")
        after = machine.inventory()
    assert after == without(home, before)


def test_who_is_not_root_is_told_so_before_anything_is_changed(home: Path) -> None:
    with FreshMachine(home) as machine:
        before = machine.inventory()
        nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
        assert "not root" in machine.run(*nobody, QUICKSTART, code=1)
        assert machine.inventory() == before


def without(home: Path, lines: list[str]) -> list[str]:
    """An inventory without FIFTY_HOME itself, which is to be gone."""
    return [line for line in lines if line != str(home)]


def _pid_of_server(machine: FreshMachine) -> str:
    return machine.run("pgrep", "--full", "deployments.prefect_server").split()[0]
