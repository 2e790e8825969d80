"""Encrypted disks: made on an encrypted base, and described so that libvirt opens both."""

from __future__ import annotations

import hashlib
import subprocess
import uuid
from pathlib import Path

import pytest
from lxml import etree

from blocks.errors import UnsafeImage
from blocks.hypervisor.disk_chain import backing_chain
from blocks.hypervisor.domain_xml import compose_domain
from blocks.hypervisor.guest import BackingFile, DiskSpec
from blocks.hypervisor.secrets import secret_id
from blocks.images import ImageStore, encryption
from blocks.resources import Image, ImageFormat
from tests.unit.hostile_images import PASSPHRASE, QUICK_KEY, internal_luks
from tests.unit.test_hypervisor_domain_xml import SCHEMA, spec

SECRET = uuid.UUID(secret_id("3f2504e0-4f89-41d3-9a0c-0305e82c3301"))
SIZE = 8 << 20


@pytest.fixture(autouse=True)
def _quick_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encryption, "LUKS", f"{encryption.LUKS},{QUICK_KEY}")


def disk_on_base(folder: Path) -> tuple[Path, Path]:
    stored, disk = internal_luks(folder), folder / "disk.qcow2"
    store = ImageStore(folder / "home" / "images")
    content = stored.read_bytes()
    image = Image(
        id="3f2504e0-4f89-41d3-9a0c-0305e82c3302",
        tenant_id=None,
        name="locked",
        format=ImageFormat.QCOW2,
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        virtual_size_bytes=SIZE,
        path=str(stored),
        encrypted=True,
    )
    with pytest.raises(UnsafeImage, match="encrypted"):
        store.fetch_base(image.model_copy(update={"encrypted": False}), lambda *_at: None)
    base = store.fetch_base(image, lambda *_at: None)
    for _ in range(2):  # once more is the same
        store.create_encrypted_disk(base, disk, PASSPHRASE, SIZE)
    store.resize_disk(disk, SIZE)  # nothing to do: it needs no key for that
    return base, disk


def qemu_io(disk: Path, passphrase: Path, command: str) -> subprocess.CompletedProcess[str]:
    options = (
        f"driver=qcow2,encrypt.key-secret=s,file.filename={disk},backing.driver=qcow2,"
        "backing.encrypt.key-secret=s"
    )
    words = ["qemu-io", "--object", f"secret,id=s,file={passphrase}", "--image-opts", "-c", command]
    return subprocess.run([*words, options], capture_output=True, text=True, check=False)


def test_the_disk_opens_with_its_base_and_holds_nothing_in_clear(tmp_path: Path) -> None:
    base, disk = disk_on_base(tmp_path)
    key = tmp_path / "key"
    key.write_text(PASSPHRASE)
    written = qemu_io(disk, key, f"write -P 7 0 {SIZE}")
    assert "wrote" in written.stdout, written.stderr
    assert "read" in qemu_io(disk, key, f"read -P 7 0 {SIZE}").stdout
    assert bytes([7]) * 512 not in disk.read_bytes()
    key.write_text("another one")
    refused = qemu_io(disk, key, "read 0 512")
    assert "Invalid password" in refused.stdout + refused.stderr
    chain = backing_chain(
        DiskSpec(path=disk, format=ImageFormat.QCOW2, target="vda", alias="ua-root", secret=SECRET)
    )
    assert chain == (BackingFile(path=base, format=ImageFormat.QCOW2, encrypted=True),)


@pytest.mark.skipif(not SCHEMA.exists(), reason="libvirt's schema is not installed")
def test_libvirt_is_told_of_both(tmp_path: Path) -> None:
    base = BackingFile(path=tmp_path / "base", format=ImageFormat.QCOW2, encrypted=True)
    guest = spec().with_encrypted_root(SECRET)
    root = etree.fromstring(compose_domain(guest, {"vda": [base]}))
    schema = etree.RelaxNG(etree.parse(SCHEMA))
    assert schema.validate(root), schema.error_log
    told = root.findall(".//disk//source/encryption[@format='luks']/secret")
    assert [one.get("uuid") for one in told] == [str(SECRET)] * 2
    # The volume and the config drive are not.
    assert len(root.findall(".//disk")) > 1
