"""A killed test session's leftovers are found and removed, and nothing else is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.commands import run
from blocks.marks import firewall_table, link_alias
from deployments import processes
from tests import sessions

pytestmark = pytest.mark.host

_DOMAIN = """
<domain type='qemu'>
  <name>fifty-tests-{site}</name><memory unit='MiB'>64</memory>
  <os><type arch='x86_64'>hvm</type></os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file'><source file='{directory}/disk'/><target dev='vda'/></disk>
  </devices>
</domain>
"""


@pytest.fixture
def killed_session() -> Iterator[tuple[Path, str]]:
    """The directory and the site of a session whose process is gone."""
    code = "from tests import sessions; d = sessions.begin(); print(d, sessions.new_site(d))"
    said = run(sys.executable, "-c", code, cwd=Path(__file__).parents[2]).stdout.split()
    directory = Path(said[0])
    yield directory, said[1]
    if directory.exists():
        sessions.end(directory)


def test_what_a_killed_session_left_is_removed(
    killed_session: tuple[Path, str], libvirtd: str, site: str
) -> None:
    directory, dead = killed_session
    (directory / "domain.xml").write_text(_DOMAIN.format(site=dead, directory=directory))
    # The first one on a machine waits until libvirt has found out what its QEMU can do.
    run("virsh", "-c", libvirtd, "define", directory / "domain.xml", timeout_s=600)
    run("ip", "link", "add", f"ft{dead}a", "type", "bridge")
    run("ip", "link", "add", f"tap{dead}", "type", "bridge")
    run("ip", "link", "set", f"tap{dead}", "alias", link_alias(dead, "port", "1"))
    run("ip", "netns", "add", f"fifty-dhcp-{dead}")
    run("ip", "-n", f"fifty-dhcp-{dead}", "link", "add", "ns-1", "type", "bridge")
    alias = link_alias(dead, "dhcp", "1")
    run("ip", "-n", f"fifty-dhcp-{dead}", "link", "set", "ns-1", "alias", alias)
    run("ip", "netns", "add", f"ft{dead}guest")
    run("nft", "add", "table", "inet", firewall_table(dead))
    run("mount", "-t", "tmpfs", "none", _made(directory / "mnt"))
    waits = "import sys; sys.stdin.read()"
    child = subprocess.Popen(
        [sys.executable, "-c", waits, f"--pid-file={directory}/x.pid"], stdin=subprocess.PIPE
    )
    run("ip", "link", "add", f"ft{site}live", "type", "bridge")
    try:
        assert directory in sessions.abandoned()
        run(sys.executable, "-m", "tests.sessions", cwd=Path(__file__).parents[2])
        assert child.wait(timeout=30) != 0

        assert not directory.exists()
        links = {link["ifname"] for link in json.loads(run("ip", "-j", "link").stdout)}
        assert not {f"ft{dead}a", f"tap{dead}"} & links
        assert f"ft{site}live" in links, "a living session's link was removed"
        namespaces = run("ip", "netns", "list").stdout
        assert dead not in namespaces
        assert firewall_table(dead) not in run("nft", "list", "tables").stdout
        assert dead not in run("virsh", "-c", libvirtd, "list", "--all", "--name").stdout
        assert str(directory) not in Path("/proc/self/mountinfo").read_text()
    finally:
        run("ip", "link", "delete", f"ft{site}live")
        child.kill()
        child.communicate()


def test_a_living_session_is_let_be(session_directory: Path) -> None:
    assert session_directory not in sessions.abandoned()
    owner = processes.Process.model_validate_json((session_directory / "owner.json").read_text())
    assert processes.is_alive(owner)


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory
