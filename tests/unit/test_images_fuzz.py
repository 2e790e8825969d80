"""Images made worse at random: the inspection refuses or accepts, and does nothing else.

Bounded, and the same at every run; `FUZZ_SEED=7 FUZZ_ROUNDS=20000` goes on from there.
"""

from __future__ import annotations

import io
import os
import random
import struct
import time
from pathlib import Path

import pytest

from blocks.errors import UnsafeImage
from blocks.images.inspection import inspect, read_virtual_size
from blocks.resources.image import SourceFormat
from tests.unit.hostile_images import SOUND, Make

SEED = int(os.environ.get("FUZZ_SEED", "1"))
ROUNDS = int(os.environ.get("FUZZ_ROUNDS", "150"))
#: So many of those that pass are shown to QEMU as well: it must agree, under its limits.
SHOWN = 6
LONGEST_S = 5.0

_NUMBERS = (0, 1, 2, 0x7F, 0xFF, 0xFFFF, 1 << 31, 0xFFFFFFFF, 1 << 40, 1 << 63, (1 << 64) - 1)


def worse(good: bytes, places: list[int], chance: random.Random) -> bytes:
    """A copy with some bytes changed, mostly where there are any."""
    image = bytearray(good)
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.choice(places) if chance.random() < 0.9 else chance.randrange(len(image))
        how = chance.randrange(6)
        if how == 0:
            image[at] = chance.randrange(256)
        elif how == 1:
            image[at] ^= 1 << chance.randrange(8)
        elif how == 2:
            form = chance.choice(("<Q", ">Q"))
            image[at : at + 8] = struct.pack(form, chance.choice((*_NUMBERS, len(image))))
        elif how == 3:
            form = chance.choice(("<I", ">I"))
            image[at : at + 4] = struct.pack(form, chance.choice(_NUMBERS) & 0xFFFFFFFF)
        elif how == 4:
            other = chance.choice(places)
            image[at : at + 16] = image[other : other + 16]
        elif chance.random() < 0.2:
            del image[at + 1 :]
            return bytes(image)
    return bytes(image)


#: A raw image has no structure, and fixed ones are long for what little they have.
_MADE_WORSE = [one for one in SOUND if one[1] is not SourceFormat.RAW and "fixed" not in one[0]]


@pytest.mark.parametrize(
    ("name", "declared", "make"), _MADE_WORSE, ids=[one[0] for one in _MADE_WORSE]
)
def test_it_refuses_or_accepts(
    tmp_path: Path, name: str, declared: SourceFormat, make: Make
) -> None:
    good = make(tmp_path).read_bytes()
    # The guest's data is all sevens.
    places = [at for at, byte in enumerate(good) if byte not in (0, 7)] + list(range(128))
    places = places if len(places) < 20_000 else places[:20_000]
    chance = random.Random(f"{SEED} {name}")  # noqa: S311 - to be the same again
    passed = refused = 0
    for number in range(ROUNDS):
        image = worse(good, places, chance)
        begun = time.process_time()
        try:
            size = read_virtual_size(io.BytesIO(image), len(image), declared)
        except UnsafeImage:
            refused += 1
            size = 0
        assert time.process_time() - begun < LONGEST_S, f"round {number} of seed {SEED}"
        if size:
            passed += 1
            if passed <= SHOWN:
                path = tmp_path / "worse"
                path.write_bytes(image)
                try:
                    assert inspect(path, declared).virtual_size_bytes == size
                except UnsafeImage as error:
                    assert "qemu-img" in error.message
    assert passed > 0
    assert refused > ROUNDS // 20
