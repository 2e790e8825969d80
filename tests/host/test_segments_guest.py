"""A real guest (QEMU, the micro image) on one host, another host of its network, GRE between."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from blocks.images import BuiltImage, ImageStore
from blocks.resources import NetworkDriver, NetworkType
from tests import sessions
from tests.host.fabric_lab import wait_for
from tests.host.image_guest import Guest, config_drive
from tests.host.underlay_lab import ANYONE, Host, Tcpdump, Transport, shout, underlay_at

pytestmark = [pytest.mark.host, pytest.mark.e2e, pytest.mark.slow]

GRE = Transport(NetworkType.GRE, NetworkDriver.OPENVSWITCH, "key=0x{:x},", 1458)
BOOT_S = 300.0
#: More than one packet holds, so that its checksums and its cutting are somebody's business.
_MUCH = 400_000


@pytest.fixture
def hosts(tmp_path: Path, session_directory: Path) -> Iterator[list[Host]]:
    with underlay_at(tmp_path, sessions.new_site(session_directory)) as underlay:
        yield [underlay.join(vswitch=True) for _ in range(2)]


def test_a_guest_and_another_host_of_its_network(
    hosts: list[Host], image_store: ImageStore, micro: BuiltImage, tmp_path: Path
) -> None:
    near, far = hosts
    lab_net = near.lab.net(realize=False, kind=GRE.kind, segment_id=77, mtu=GRE.mtu)
    network = lab_net.network.model_copy(update={"driver": GRE.driver})
    lab_net.network = network
    for host in hosts:
        host.realize(lab_net, hosts)
        serve = partial(host.lab.fabric.serve_dhcp, network, lab_net.subnet, lab_net.dhcp_port)
        host.run(serve)

    binding = far.lab.binding(lab_net, 12, ANYONE, name="hello")
    far.run(lambda: far.lab.fabric.reserve(binding))
    far.run(lambda: far.lab.fabric.plug(binding, None))
    far.run(lambda: far.lab.fabric.protect(binding))
    tap, mac = binding.port.tap, binding.port.mac
    assert tap and mac

    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    drive = config_drive(binding.port.id, key.with_suffix(".pub").read_text().strip(), mac=mac)
    wire = Tcpdump(far.namespace, "under0")
    (tmp_path / "vm").mkdir()
    asker = near.guest(lab_net, 11)
    twin_net = near.lab.net(realize=False, kind=GRE.kind, segment_id=78, mtu=GRE.mtu)
    twin_net.network = twin_net.network.model_copy(update={"driver": GRE.driver})
    for host in hosts:
        host.realize(twin_net, hosts)
    stranger, control = near.guest(twin_net, 11), far.guest(twin_net, 13)
    with far.run(
        lambda: Guest(image_store, micro, tmp_path / "vm", drive, disk_gib=1, tap=(tap, mac))
    ) as guest:
        guest.wait_until_ready()
        # From the server of its own host.
        assert far.run(lambda: far.lab.fabric.lease(binding.port)) is not None
        assert near.run(lambda: near.lab.fabric.lease(binding.port)) is None
        address = binding.port.addresses[0].address
        wait_for("the guest answers", lambda: asker.pings(address), BOOT_S)
        wire.until(GRE.shows.format(77))

        ssh = ["ssh", "-i", str(key), "-o", "StrictHostKeyChecking=no", "-F", "none"]
        ssh += ["-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes"]
        ssh += ["-o", "ConnectTimeout=60", "-o", "LogLevel=ERROR"]
        ssh += [f"{micro.login_user}@{address}"]
        read = asker.run(
            *ssh, f"head -c {_MUCH} /dev/zero | tr '\\0' x; cat /sys/class/net/eth0/mtu"
        )
        assert read.returncode == 0, read.stderr
        assert read.stdout.count("x") == _MUCH
        assert read.stdout.rpartition("x")[2].strip() == str(GRE.mtu)
        # The stranger's network has the same addresses, and nobody at this one.
        heard = Tcpdump(far.namespace, tap, "udp", "port", "9")
        assert not stranger.pings(address, 2)
        shout(stranger, b"of the other network")
        assert stranger.pings(control.address, 3)
        shout(asker, b"of its own network")
        said = heard.until(asker.mac)
        assert stranger.mac not in said
        heard.close()
    wire.close()
