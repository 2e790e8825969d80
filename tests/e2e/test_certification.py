"""Images that are booted and tested: the certificate, and that nothing of the trial is left."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.cloud import Cloud
from tests.inventory import differences

pytestmark = pytest.mark.e2e

RECIPE = Path(__file__).resolve().parents[2] / "blocks" / "images" / "recipes" / "micro"
TESTS = (
    *("key-login", "injected-file", "cloud-init", "root-size", "host-name", "time-zone"),
    *("fstab", "console", "tmp", "snapshot", "volume"),
)


def verdicts(certificate: Mapping[str, Any]) -> dict[str, str]:
    return {one["test"]: one["verdict"] for one in certificate["tests"]}


def test_micro_gets_its_certificate_and_nothing_is_left(cloud: Cloud) -> None:
    before = cloud.inventory()
    held = cloud.json("image", "certify", "micro")
    assert verdicts(held) == dict.fromkeys(TESTS, "pass")
    assert all(one["evidence"] for one in held["tests"])
    assert differences(before, cloud.inventory()) == []
    assert cloud.json("audit")["clean"]
    image = cloud.json("image", "show", "micro")
    assert image["certificate"] == held
    assert held["sha256"] == image["sha256"]
    assert {"fifty-steps", "qemu", "libvirt", "kernel"} <= held["versions"].keys()
