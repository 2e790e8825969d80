"""Data plane and images under a stock distribution's kernel, by the same tests as under this one.

There the firewall is one table of family bridge (nf_conntrack_bridge), link kinds are
modules that nobody has loaded yet, and GRE, VLANs, Open vSwitch's datapath and NBD are the
kernel's own.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.stock_kernel import machine

pytestmark = [pytest.mark.host, pytest.mark.slow]

PROJECT = Path(__file__).parents[2]
_PROBE = (
    "from blocks.fabric import kernel; "
    "from blocks.fabric.segments.vswitch import kernel_has_datapath; "
    "assert kernel.tracks_connections_in_bridges(); "
    "assert kernel.knows_link_kind('vxlan') and kernel.knows_link_kind('gretap'); "
    "assert not kernel.knows_link_kind('nosuchkind'); "
    "assert kernel_has_datapath()"
)
_PYTEST = [
    *(sys.executable, "-m", "pytest", "-q", "-x", "--tb=short", "--color=no"),
    *("-p", "no:cacheprovider", "--timeout=300"),
]


@pytest.fixture(name="tree", scope="module")
def _tree(session_directory: Path) -> Path:
    missing = machine.missing()
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    return machine.kernel_tree(session_directory / "stock-kernel")


def test_the_kernel_is_asked_what_it_can_do(tree: Path, tmp_path: Path) -> None:
    machine.run(tree, tmp_path, [sys.executable, "-c", _PROBE], PROJECT, 300)


@pytest.mark.parametrize(
    "name", ["fabric_firewall", "attacks", "fabric_revoking", "fabric_floating", "fabric_routing"]
)
def test_passes_under_a_stock_kernel(tree: Path, tmp_path: Path, name: str) -> None:
    print(machine.run(tree, tmp_path, [*_PYTEST, f"tests/host/test_{name}.py"], PROJECT, 880))


def test_hosts_are_joined_by_the_kernels_own_gre_and_vlans(tree: Path, tmp_path: Path) -> None:
    words = [*_PYTEST, "tests/host/test_segments_hosts.py", "-k", "linuxbridge"]
    said = machine.run(tree, tmp_path, words, PROJECT, 880)
    assert "7 passed" in said
    assert "skipped" not in said


def test_open_vswitch_switches_in_the_kernel(tree: Path, tmp_path: Path) -> None:
    files = [f"tests/host/test_segments_{name}.py" for name in ("openvswitch", "hosts")]
    words = [*_PYTEST, *files, "-k", "made_as or driver_is or (talk and gre-openvswitch)"]
    assert "3 passed" in machine.run(tree, tmp_path, words, PROJECT, 880)


def test_the_kernels_own_nbd_is_the_way_into_an_image(tree: Path, tmp_path: Path) -> None:
    words = [*_PYTEST, "tests/stock_kernel/nbd_devices.py"]
    assert "11 passed" in machine.run(tree, tmp_path, words, PROJECT, 880)


def test_what_goes_by_nbd_goes_by_the_kernels_own(tree: Path, tmp_path: Path) -> None:
    words = [*_PYTEST, "tests/host/test_images_access.py", "-k", "nbd or error_inside"]
    assert "6 passed" in machine.run(tree, tmp_path, words, PROJECT, 880)
