"""`fifty image import`: from files and URLs; failed, killed and refused it leaves nothing."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.host.image_site import Site, _site  # noqa: F401 - the fixture `site`
from tests.prefect_api import api
from tests.unit.hostile_images import backing, image, vmdk_without_capacity
from tests.waiting import eventually
from tests.web_server import Served, WebServer, web_server

pytestmark = pytest.mark.host

MIB = 1 << 20
STEPS = (12, 13, 14, 15)


@pytest.fixture(name="server")
def _server() -> Iterator[WebServer]:
    with web_server() as server:
        yield server


def content_of(path: str | Path, form: str) -> str:
    raw = Path(path).with_suffix(".seen")
    subprocess.run(["qemu-img", "convert", "-f", form, "-O", "raw", path, raw], check=True)
    digest = hashlib.sha256(raw.read_bytes()).hexdigest()
    raw.unlink()
    return digest


def test_a_vmdk_by_url_that_breaks_off(site: Site, server: WebServer, tmp_path: Path) -> None:
    source = image("vmdk")(tmp_path)
    data = source.read_bytes()
    server.files["/i.vmdk"] = Served(data, breaks_at=MIB)
    sums = f"{hashlib.sha256(data).hexdigest()}  i.vmdk\n"
    server.files["/SHA256SUMS"] = Served(sums.encode())
    url = server.url("/i.vmdk?signature=secret")
    server.files["/i.vmdk?signature=secret"] = server.files["/i.vmdk"]
    words = ("image", "import", "foreign", url, "--sha256sums", "--property", "hw_disk_bus=virtio")
    made = site.fifty(*words)
    assert (made["format"], made["status"], made["min_disk_gib"]) == ("qcow2", "active", 1)
    assert made["source"] == server.url("/i.vmdk")
    assert made["properties"] == {"hw_disk_bus": "virtio"}
    assert content_of(made["path"], "qcow2") == content_of(source, "vmdk")
    # No byte of it came twice.
    assert server.sent == len(data) + len(sums)
    # Once more is refused, and harms nothing.
    refused = site.fifty(*words, code=1)
    assert refused["error"] == "Conflict"
    assert Path(made["path"]).is_file()
    site.fifty("image", "delete", "foreign")
    site.require_nothing()


def test_its_progress_is_drawn_in_bytes(site: Site, server: WebServer, tmp_path: Path) -> None:
    """By a progress artifact of the step, which the UI shows beside the run."""
    gate, data = threading.Event(), image("raw")(tmp_path).read_bytes()
    assert len(data) == 64 * MIB
    server.files["/slow"] = Served(data, gate=gate, gate_at=2 * MIB)
    wanted = {"artifacts": {"key": {"any_": ["slow-1-2-progress"]}}}

    def drawn(words: str) -> dict[str, Any]:
        found = api("POST", "/artifacts/filter", json=wanted).json()
        return next((dict(one) for one in found if one["description"] == words), {})

    with ThreadPoolExecutor(1) as pool:
        url = server.url("/slow")
        done = pool.submit(site.run, "image", "import", "Slow", url, "--version", "1.2")
        try:
            there = eventually(lambda: drawn("fetching Slow:1.2: 2 of 64 MiB"), "first figure")
        finally:
            gate.set()
        assert done.result().returncode == 0, done.result().stderr
    assert (there["type"], there["data"]) == ("progress", 3.125)
    assert there["flow_run_id"] and there["task_run_id"]
    # Its last figure is the last that there was.
    assert drawn("fetching Slow:1.2: 64 of 64 MiB")["data"] == 100.0
    site.fifty("image", "delete", "Slow:1.2")
    site.require_nothing()


@pytest.mark.slow
def test_killed_in_every_step_it_goes_on(site: Site, tmp_path: Path) -> None:
    source = image("qcow2")(tmp_path)
    expected = content_of(source, "qcow2")
    for step in STEPS:
        for when in ("before", "after"):
            name = f"killed-{step}-{when}"
            fault = f"{step}:kill:{when}"
            done = site.run("image", "import", name, str(source), FIFTY_FAULT=fault)
            assert done.returncode == -signal.SIGKILL, done.stderr
    ended = site.fifty("reconcile")["reconciled"]
    assert {one["state"] for one in ended} == {"complete"}
    images = site.fifty("image", "list")
    assert len(images) == 2 * len(STEPS)
    for one in images:
        assert content_of(one["path"], "qcow2") == expected
        site.fifty("image", "delete", one["name"])
    site.require_nothing()


@pytest.mark.slow
def test_a_failure_in_every_step_leaves_nothing(site: Site, tmp_path: Path) -> None:
    source = image("vdi")(tmp_path)
    for step in STEPS:
        words = ("image", "import", f"failed-{step}", str(source))
        refused = site.fifty(*words, code=1, FIFTY_FAULT=f"{step}:raise:after")
        assert refused["error"] == "InjectedFault"
        site.require_nothing()
    # The undo is killed as well: whoever comes after ends it.
    words = ("image", "import", "undone", str(source))
    done = site.run(*words, FIFTY_FAULT="15:raise:after,u12:kill")
    assert done.returncode == -signal.SIGKILL
    assert site.files() != []
    assert [one["state"] for one in site.fifty("reconcile")["reconciled"]] == ["undone"]
    site.require_nothing()


def test_what_is_not_safe_leaves_nothing(site: Site, server: WebServer, tmp_path: Path) -> None:
    for number, make in enumerate((backing, vmdk_without_capacity)):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = make(folder)
        assert site.fifty("image", "import", "bad", str(path), code=1)["error"] == "UnsafeImage"
        site.require_nothing()
    server.files["/endless"] = Served(bytes(MIB), length=None, endless=True)
    words = ("image", "import", "bad", server.url("/endless"))
    refused = site.fifty(*words, code=1, FIFTY_IMAGE_LIMIT_GIB="0.01")
    assert (refused["error"], server.sent < 64 * MIB) == ("UnsafeImage", True)
    site.require_nothing()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("bad", "file:///etc/shadow"), "InvalidRequest"),
        (("bad", "http://user:password@127.0.0.1/"), "InvalidRequest"),
        (("bad", "http://169.254.169.254/latest"), "Denied"),
        (("bad", "http://10.0.0.1/image"), "Denied"),
        (("../bad", "/image"), "InvalidRequest"),
        (("bad", "/no/such/file"), "NotFound"),
        (("bad", "/dev/zero"), "UnsafeImage"),
        (("bad", "/etc/hostname", "--format", "vmdk"), "UnsafeImage"),
        (("bad", "/etc/hostname", "--format", "exe"), "InvalidRequest"),
        (("bad", "/etc/hostname", "--sha256", "0" * 64), "UnsafeImage"),
        (("bad", "/etc/hostname", "--sha256", "0" * 64, "--sha256sums"), "InvalidRequest"),
        (("bad", "/etc/hostname", "--property", "A=1"), "InvalidRequest"),
        (("bad", "/etc/hostname", "--encrypted", "--to", "raw"), "InvalidRequest"),
    ],
)
def test_what_is_refused(site: Site, words: tuple[str, ...], error: str) -> None:
    assert site.fifty("image", "import", *words, code=1)["error"] == error
    site.require_nothing()


@pytest.mark.slow
def test_who_may(site: Site, server: WebServer, tmp_path: Path) -> None:
    """A member imports from URLs only: as root, Fifty Steps could read any file for them."""
    source = image("raw")(tmp_path)
    server.files["/i"] = Served(source.read_bytes())
    for role in ("reader", "member"):
        site.fifty("tenant", "token", "default", "--role", role, "--save", f"import-{role}")
    member = ("--credentials", "import-member")
    refused = site.fifty("image", "import", "mine", str(source), *member, code=1)
    assert refused["error"] == "Denied"
    url = server.url("/i")
    for words in ((*member, "--public"), ("--credentials", "import-reader")):
        assert site.fifty("image", "import", "mine", url, *words, code=1)["error"] == "Denied"
    site.require_nothing()
    assert site.fifty("image", "import", "mine", url, *member)["visibility"] == "private"
    site.fifty("image", "delete", "mine", *member)
    site.require_nothing()
