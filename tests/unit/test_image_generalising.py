"""Generalising: what makes a guest one certain machine goes, and what its owner made stays."""

from __future__ import annotations

from pathlib import Path

from blocks.images.access.without_kernel import DebugfsAccess
from blocks.images.check import Verdict, look_at
from blocks.images.generalising import generalising
from tests.image_maker import Link, Part, Tree, make_disk, run

LIVED: Tree = {
    "etc/passwd": "root:x:0:0::/root:/bin/sh\n",
    "etc/shadow": "root:*:1::::::\n",
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "etc/instance-id": "6f1c\n",
    "var/lib/dbus/machine-id": "0123456789abcdef\n",
    "etc/ssh/ssh_host_rsa_key": "secret",
    "etc/ssh/ssh_host_rsa_key.pub": "public",
    "etc/ssh/sshd_config": "UsePAM yes\n",
    "etc/dropbear/host_key": "secret",
    "var/lib/dhcp/dhclient.ens3.leases": "lease {}\n",
    "etc/udev/rules.d/70-persistent-net.rules":
        'SUBSYSTEM=="net", ATTR{address}=="52:54:00:12:34:56", NAME="eth0"\n',
    "etc/udev/rules.d/60-mine.rules": "# mine\n",
    "etc/netplan/10-mine.yaml": "network: {}\n",
    "etc/systemd/network/10-cloud-init-ens3.network": "[Match]\nMACAddress=52:54:00:12:34:56\n",
    "var/lib/systemd/random-seed": "seed",
    "var/lib/cloud/instances/i-1/sem/config_ssh": "done",
    "var/lib/cloud/instance": Link("instances/i-1"),
    "var/lib/cloud/data/result.json": "{}",
    "var/lib/cloud/seed/nocloud/meta-data": "the image's own",
    "var/log/journal/0123/system.journal": "binary",
    "var/log/cloud-init.log": "much",
    "var/log/apt/history.log": "much",
    "var/log/empty.log": "",
    "tmp/left/deep": "x",
    "var/tmp/left": "x",
    "root/.ssh/authorized_keys": "ssh-ed25519 AAAA old\n",
    "home/debian/.ssh/authorized_keys": "ssh-ed25519 AAAA old\n",
    "home/debian/.ssh/config": "Host *\n",
    "home/debian/work.txt": "kept",
    "usr/lib/systemd/systemd": "",
}  # fmt: skip
#: By all the systems that there are, of which no guest is more than one.
GOES = (
    "var/lib/dhclient/dhclient--eth0.lease", "var/lib/NetworkManager/internal-1-eth0.lease",
    "etc/udev/rules.d/70-persistent-cd.rules", "etc/netplan/50-cloud-init.yaml",
    "etc/network/interfaces.d/50-cloud-init", "var/lib/systemd/credential.secret",
    "etc/NetworkManager/system-connections/cloud-init-eth0.nmconnection",
    *(f"root/.{name}_history" for name in ("bash", "zsh", "ash", "sh", "python")),
    *(f"home/debian/.{name}_history" for name in ("mysql", "psql", "sqlite", "node_repl")),
    "root/.lesshst", "home/debian/.viminfo",
)  # fmt: skip
STAYS = (
    "/etc/ssh/sshd_config", "/etc/udev/rules.d/60-mine.rules", "/etc/netplan/10-mine.yaml",
    "/var/lib/cloud/seed/nocloud/meta-data", "/home/debian/.ssh/config", "/home/debian/work.txt",
    "/etc/passwd", "/etc/shadow",
)  # fmt: skip
POINTS = ("fixed-mac", "machine-id", "host-keys", "passwords", "keys", "state")


def verdicts(guest: DebugfsAccess) -> dict[str, Verdict]:
    return {one.point: one.verdict for one in look_at(guest) if one.point in POINTS}


def test_a_machine_that_lived_becomes_an_image(tmp_path: Path) -> None:
    lived = {**LIVED, **dict.fromkeys(GOES, "x")}
    disk = make_disk(tmp_path / "disk", [Part(lived, modes={"var/log/cloud-init.log": 0o640})])
    guest = DebugfsAccess(disk, tmp_path)
    try:
        before = verdicts(guest)
        assert [name for name, one in before.items() if one is Verdict.FAIL] == [
            "fixed-mac", "machine-id", "host-keys", "keys", "state",
        ]  # fmt: skip
        kept = {path: guest.read(path) for path in STAYS}
        wanted = generalising(guest)
        guest.apply([change for _why, change in wanted])
        assert set(verdicts(guest).values()) == {Verdict.PASS}
        assert {path: guest.read(path) for path in STAYS} == kept
        log = guest.find("/var/log/cloud-init.log")
        assert log is not None
        assert (log.size, log.permissions) == (0, 0o640)
        assert guest.read("/var/log/apt/history.log") == b""
        assert guest.names("/var/log/journal") == []
        assert guest.names("/var/lib/cloud") == ["seed"]
        assert not guest.exists("/etc/instance-id")
        assert [path for path in GOES if guest.exists(f"/{path}")] == []
        # Once is enough: what is left to do is done already.
        assert all(guest.is_done(change) for _why, change in generalising(guest))
    finally:
        guest.close()
    run("e2fsck", "-fn", f"{disk}?offset={1024 * 1024}")


def test_a_guest_without_any_of_it_is_left_alone(tmp_path: Path) -> None:
    disk = make_disk(tmp_path / "disk", [Part({"etc/passwd": "x"})])
    guest = DebugfsAccess(disk, tmp_path)
    try:
        assert generalising(guest) == []
    finally:
        guest.close()
