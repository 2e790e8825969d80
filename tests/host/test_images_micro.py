"""The micro image: built from packages, booted by its own MBR, looked at from inside."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from blocks.images import BuiltImage, ImageStore, inspect
from blocks.images.exports import mount_points
from tests.host.conftest import MICRO_ID
from tests.host.image_guest import MAC, Guest, config_drive

pytestmark = [pytest.mark.host, pytest.mark.e2e]

ONE, TWO = "11111111-2222-4333-8444-555555555551", "11111111-2222-4333-8444-555555555552"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("micro")


@pytest.fixture(scope="module")
def store(image_store: ImageStore) -> ImageStore:
    return image_store


@pytest.fixture(scope="module")
def image(micro: BuiltImage) -> BuiltImage:
    return micro


@pytest.fixture(scope="module")
def key(directory: Path) -> Path:
    path = directory / "key"
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", 'a "b" c', "-f", str(path)]
    subprocess.run(words, check=True)
    return path


def public(key: Path) -> str:
    return key.with_suffix(".pub").read_text().strip()


def in_store(store: ImageStore) -> set[tuple[str, str]]:
    """Kind and owner of what is in the image store."""
    return {(found.kind, found.owner) for found in store.inventory()}


def test_build_leaves_an_image_and_nothing_else(
    store: ImageStore, image: BuiltImage, images: Path
) -> None:
    seen = inspect(image.path, image.format)
    assert (seen.size_bytes, seen.virtual_size_bytes) == (image.size_bytes, 48 * 1024**2)
    said = subprocess.run(["sha256sum", image.path], capture_output=True, text=True, check=True)
    assert said.stdout.split()[0] == image.sha256
    assert in_store(store) == {("image-file", MICRO_ID)}
    assert [point for point in mount_points() if str(images) in point] == []
    loops = subprocess.run(["losetup", "-l"], capture_output=True, text=True, check=True).stdout
    assert str(images) not in loops


def test_build_again_is_the_same_image(store: ImageStore, image: BuiltImage) -> None:
    before = image.path.stat()
    assert store.build("micro", MICRO_ID, lambda _text: None) == image
    assert image.path.stat().st_ino == before.st_ino


def test_build_after_a_kill_and_remove(store: ImageStore, images: Path) -> None:
    other = "bbbbbbbb-2222-4333-8444-555555555555"
    before = in_store(store)
    scratch = images / "build" / other
    (scratch / "tree" / "bin").mkdir(parents=True)
    (images / "store" / f"{other}.qcow2.part").write_bytes(b"half")
    assert {owner for _kind, owner in in_store(store) - before} == {other}
    built = store.build("micro", other, lambda _text: None)
    assert inspect(built.path, built.format).size_bytes == built.size_bytes
    assert in_store(store) - before == {("image-file", other)}
    store.remove_image(other)
    store.remove_image(other)
    assert in_store(store) == before
    assert [path for path in built.path.parent.iterdir() if other in path.name] == []


def check_dhcp_options(guest: Guest, key: Path) -> None:
    """Give the guest's DHCP script the answers that QEMU's own server cannot give."""
    bound = "interface=eth0 ip=10.0.2.15 mask=24 dns='10.0.2.3' /lib/micro/udhcpc bound"
    guest.ssh(f"router='10.0.2.2 10.0.2.9' {bound}", key)
    routes = guest.ssh("ip route show", key)
    assert "default via 10.0.2.2 dev eth0" in routes
    # Option 121 wins over the router (RFC 3442); 10.50.0.1 is in no network of ours.
    static = "169.254.169.254/32 10.0.2.3 10.99.0.0/16 10.50.0.1 0.0.0.0/0 10.0.2.4"
    guest.ssh(f"mtu=1400 router=10.0.2.9 staticroutes='{static}' {bound}", key)
    routes = guest.ssh("ip route show", key)
    assert "default via 10.0.2.4 dev eth0" in routes
    assert "169.254.169.254 via 10.0.2.3 dev eth0" in routes
    assert "10.99.0.0/16 via 10.50.0.1 dev eth0" in routes
    assert "10.0.2.9" not in routes


def test_three_boots(store: ImageStore, image: BuiltImage, directory: Path, key: Path) -> None:
    """First boot; the same instance again; the same disk as another instance."""
    work = directory / "guest"
    work.mkdir()
    script = "#!/bin/sh\necho ran $(hostname) >>/root/ran\nip addr show eth0 | grep -q 10.0.2.15\n"
    drive = config_drive(ONE, public(key), user_data=script)
    with Guest(store, image, work, drive) as guest:
        guest.wait_until_ready()
        assert "FIFTY-MARK error" not in guest.console()
        assert "FIFTY-MARK dhcp eth0 10.0.2.15/24" in guest.console()
        assert "FIFTY-MARK ready hello" in guest.console()
        assert guest.ssh("hostname; cat /root/ran", key) == "hello\nran hello\n"
        assert guest.ssh("cat /root/.ssh/authorized_keys", key) == f"{public(key)}\n"
        assert 1900 < int(guest.ssh("df -m / | awk 'END {print $2}'", key)) <= 2048
        assert "10.0.2.3" in guest.ssh("cat /etc/resolv.conf", key)
        check_dhcp_options(guest, key)
        assert "mtu 1400" in guest.ssh("ip link show eth0", key)
        assert guest.ssh("cat /sys/class/block/vdc/size", key) == "131072\n"
        tools = "ping wget nc ip sysctl mke2fs mount poweroff"
        assert len(guest.ssh(f"which {tools}", key).split()) == len(tools.split())
        first = guest.host_keys()
        guest.press_power_button()

    with Guest(store, image, work, drive) as guest:
        guest.wait_until_ready()
        assert guest.host_keys() == first
        assert guest.ssh("cat /root/ran", key) == "ran hello\n"
        guest.ssh("sync", key)

    static: dict[str, object] = {
        "id": "network0",
        "type": "ipv4",
        "link": "tap1",
        "ip_address": "10.0.2.15",
        "netmask": "255.255.255.0",
        "routes": [{"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "10.0.2.2"}],
    }
    drive = config_drive(TWO, public(key), network=static, user_data=script)
    with Guest(store, image, work, drive) as guest:
        guest.wait_until_ready()
        assert "FIFTY-MARK static eth0 10.0.2.15/24" in guest.console()
        assert "FIFTY-MARK dhcp" not in guest.console()
        assert guest.host_keys() != first
        assert guest.ssh("cat /root/ran", key) == "ran hello\nran hello\n"
        assert "mtu 1442" in guest.ssh("ip link show eth0", key)
        assert "via 10.0.2.2" in guest.ssh("ip route show default", key)
        assert MAC in guest.ssh("cat /sys/class/net/eth0/address", key)


def test_failing_user_data_is_told_on_the_console(
    store: ImageStore, image: BuiltImage, directory: Path, key: Path
) -> None:
    work = directory / "failing"
    work.mkdir()
    drive = config_drive(ONE, public(key), user_data="#!/bin/sh\nexit 7\n")
    with Guest(store, image, work, drive) as guest:
        guest.wait_until_ready()
        assert "FIFTY-MARK error user-data ended with 7" in guest.console()
