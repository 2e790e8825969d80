"""What tests of a host share: the micro image, built once."""

from __future__ import annotations

from pathlib import Path

import pytest

from blocks.images import BuiltImage, ImageStore

MICRO_ID = "aaaaaaaa-2222-4333-8444-555555555555"


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of an image store."""
    return tmp_path_factory.mktemp("host") / "images"


@pytest.fixture(scope="session")
def image_store(images: Path) -> ImageStore:
    """That image store; between tests it holds the micro image, or nothing."""
    return ImageStore(images)


@pytest.fixture(scope="session")
def micro(image_store: ImageStore) -> BuiltImage:
    """The image `micro`, in that store."""
    said: list[str] = []
    built = image_store.build("micro", MICRO_ID, said.append)
    assert said
    return built
