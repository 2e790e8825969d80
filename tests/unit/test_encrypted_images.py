"""What cannot be done with an encrypted image says so, before anything is begun."""

from __future__ import annotations

import uuid
from types import SimpleNamespace
from typing import Any, cast

import pytest

from blocks.errors import Unsupported
from blocks.images.certification import Verdict
from blocks.resources import Image, ImageFormat
from blocks.world import World
from tasks import certificate_trials
from tasks.certificate_build import Certification
from tasks.image_check import look


@pytest.fixture(name="image")
def _image() -> Image:
    return Image(
        id=str(uuid.uuid4()),
        tenant_id=str(uuid.uuid4()),
        name="closed",
        format=ImageFormat.QCOW2,
        sha256="1" * 64,
        size_bytes=1,
        virtual_size_bytes=512,
        path="/nowhere",
        encrypted=True,
        passphrase_secret="disk",
    )


def test_it_is_not_looked_into(image: Image) -> None:
    with pytest.raises(Unsupported, match="encrypted"):
        look(cast(World, None), image, None)


def test_its_certificate_asks_for_no_snapshot(
    image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest: Any = SimpleNamespace(image=image, build=SimpleNamespace(id="one"))
    monkeypatch.setattr(certificate_trials, "the_guest", lambda _subject: guest)
    world = SimpleNamespace(hypervisor=SimpleNamespace(connection=None), site="0000")
    subject: Any = SimpleNamespace(world=world, plan={"token": ""})
    outcome = certificate_trials.try_snapshot(cast(Certification, subject))
    assert (outcome.test, outcome.verdict) == ("snapshot", Verdict.NOT_APPLICABLE)
    assert "encrypted" in outcome.evidence[0]
