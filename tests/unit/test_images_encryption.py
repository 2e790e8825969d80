"""Images that are encrypted on their way in: unreadable without the passphrase, whole with it."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from blocks.errors import UnsafeImage
from blocks.images import encryption
from blocks.resources.image import ImageFormat
from tests.unit.hostile_images import PASSPHRASE, QUICK_KEY, image, internal_luks
from tests.unit.test_images_intake import ID, Lab, content_of, nothing

PATTERN = bytes([7]) * 4096


@pytest.fixture(autouse=True)
def _quick_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encryption, "LUKS", f"{encryption.LUKS},{QUICK_KEY}")


@pytest.fixture(name="lab")
def _lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def opened(path: Path, passphrase: str) -> str:
    """The digest of what a guest sees, by QEMU with a secret of its own."""
    raw = path.with_name("opened")
    secret = path.with_name("passphrase")
    secret.write_text(passphrase)
    words = ["qemu-img", "convert", "--object", f"secret,id=s,file={secret}", "--image-opts"]
    options = f"driver=qcow2,encrypt.key-secret=s,file.filename={path}"
    subprocess.run([*words, "-O", "raw", options, str(raw)], check=True)
    return hashlib.sha256(raw.read_bytes()).hexdigest()


def test_what_was_clear_is_encrypted(lab: Lab, tmp_path: Path) -> None:
    source = image("vmdk")(tmp_path)
    passphrase = "with 'quotes', commas=and ünicode\n"
    lab.intake.fetch(str(source), ID, None, nothing)
    seen = lab.intake.inspect(ID, None, nothing)
    made = lab.intake.convert(
        ID, seen, ImageFormat.QCOW2, nothing, compressed=True, passphrase=passphrase
    )
    assert made.encrypted
    content = made.path.read_bytes()
    assert PATTERN in source.read_bytes()
    assert PATTERN not in content
    assert passphrase.encode().strip() not in content
    assert opened(made.path, passphrase) == content_of(source, "vmdk")
    with pytest.raises(UnsafeImage, match="does not open"):
        encryption.check(made.path, "another one")
    assert list(lab.scratch.iterdir()) == []


def test_what_is_encrypted_has_to_open(lab: Lab, tmp_path: Path) -> None:
    source = internal_luks(tmp_path)
    lab.intake.fetch(str(source), ID, None, nothing)
    seen = lab.intake.inspect(ID, None, nothing, encrypted=True)
    for wrong in ("", "another one", f"{PASSPHRASE}\n"):
        with pytest.raises(UnsafeImage, match="does not open"):
            lab.intake.convert(
                ID, seen, ImageFormat.QCOW2, nothing, compressed=True, passphrase=wrong
            )
        assert list(lab.store.iterdir()) == []
    made = lab.intake.convert(
        ID, seen, ImageFormat.QCOW2, nothing, compressed=True, passphrase=PASSPHRASE
    )
    assert made.path.read_bytes() == source.read_bytes()
