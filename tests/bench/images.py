"""Images: a build, an import against `qemu-img convert`, a VM's disks, an import's memory."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median

from blocks.state import Entry
from tests.bench.figures import Figure, of_samples, say
from tests.cloud import Cloud

BUILD_S, DISKS_S, MEMORY_MIB = 6.0, 0.4, 200.0
#: 80 % of the speed of `qemu-img convert`, as the ratio the other way round.
IMPORT = 1 / 0.8
FILE_BYTES = 500 * 1024**2
SPARSE_BYTES = 4 * 1024**3
_MIB = 1024**2
#: Where the file's content comes from: programs and libraries, as a guest's disk has them.
_CONTENT = Path("/usr")
_CHUNK = 1024**2
_SAMPLE_S = 0.05
_DISK_STEPS = (27, 28, 29, 30)
#: The first step after those of a VM's disk and network, which they end before.
_AFTER_DISKS = 41
_IMPORT_STEPS = (12, 13, 14, 15)


def measure(cloud: Cloud, directory: Path, runs: int) -> list[Figure]:
    """The four figures; whatever was made of images and VMs is removed again."""
    folder = directory / "images-bench"
    folder.mkdir()
    return [_build(cloud, runs), _disks(cloud, folder, runs), *_import(cloud, folder, runs)]


def _build(cloud: Cloud, runs: int) -> Figure:
    """The whole command; the packages are at hand, as the site has built this image before."""
    took, steps = [], []
    for run in range(runs):
        began = time.perf_counter()
        image = cloud.json("image", "build", "micro", "--name", f"built{run}")
        took.append(time.perf_counter() - began)
        steps.append(_seconds(_journal(cloud, image["id"])[2]))
        cloud.fifty("image", "delete", f"built{run}")
        say(f"build {run}: {took[-1]:.2f} s, of which the build {steps[-1]:.2f} s")
    figure = of_samples("image build micro, packages at hand", took, "s", BUILD_S)
    figure.notes = [f"step 2, which builds it, {median(steps):.2f} s; the rest is the command"]
    return figure


def _disks(cloud: Cloud, folder: Path, runs: int) -> Figure:
    """Overlay, its size, config drive and a file injected, beside the network's steps."""
    file = folder / "greeting"
    file.write_text("hello\n")
    sums: list[float] = []
    parts: list[list[float]] = []
    for run in range(runs + 1):
        name = f"disks{run}"
        cloud.json(
            *("vm", "create", name, "--image", "micro", "--flavor", "tiny", "--network", "lab"),
            *("--inject", f"{file}:/etc/greeting", "--on-failure", "keep"),
            fault=f"{_AFTER_DISKS}:raise",
            code=1,
        )
        journal = cloud.journal(cloud.build(name))
        cloud.fifty("vm", "delete", name)
        if run == 0:
            continue  # the base came into the cache
        parts.append([_seconds(journal[number]) for number in _DISK_STEPS])
        sums.append(sum(parts[-1]))
        say(f"disks {run}: {sums[-1]:.3f} s")
    figure = of_samples("overlay, size, config drive, injection", sums, "s", DISKS_S)
    middle = [median(column) * 1000 for column in zip(*parts, strict=True)]
    shown = ", ".join(f"{n}: {ms:.0f}" for n, ms in zip(_DISK_STEPS, middle, strict=True))
    figure.notes = [f"steps in ms: {shown}; the network's steps run at the same time"]
    return figure


def _import(cloud: Cloud, folder: Path, runs: int) -> list[Figure]:
    """Speed by the file of 500 MiB; memory by that and a large sparse one, from disk and URL."""
    full, sparse = folder / "full.raw", folder / "sparse.raw"
    say(f"making images of {FILE_BYTES // _MIB} and {SPARSE_BYTES // _MIB} MiB")
    _fill(full)
    _fill_sparsely(sparse)
    digest = subprocess.run(["sha256sum", full], capture_output=True, text=True, check=True)
    checksum = ("--sha256", digest.stdout.split()[0])
    bare: list[float] = []
    ours: list[dict[int, float]] = []
    peaks: dict[str, list[float]] = {}
    for run in range(runs):
        bare.append(_convert(full, folder / "converted.qcow2"))
        peak, journal = _import_once(cloud, str(full), *checksum)
        ours.append({number: _seconds(journal[number]) for number in _IMPORT_STEPS})
        peaks.setdefault("500 MiB, a file", []).append(peak)
        say(f"import {run}: qemu-img {bare[-1]:.2f} s, ours {sum(ours[-1].values()):.2f} s")
    with _served(folder) as url:
        for name, source in (
            ("500 MiB, a URL", f"{url}/{full.name}"),
            ("4 GiB sparse, a file", str(sparse)),
            ("4 GiB sparse, a URL", f"{url}/{sparse.name}"),
        ):
            peaks[name] = [_import_once(cloud, source)[0]]
            say(f"import, {name}: {peaks[name][0]:.0f} MiB")
    ratio = of_samples(
        "import of 500 MiB raw / qemu-img convert",
        [sum(took.values()) / one for took, one in zip(ours, bare, strict=True)],
        "",
        IMPORT,
    )
    shown = ", ".join(f"{n}: {median(one[n] for one in ours):.2f}" for n in _IMPORT_STEPS)
    ratio.notes = [
        f"qemu-img {median(bare):.2f} s; ours, the source's checksum compared, by steps: {shown}"
    ]
    memory = Figure(
        "an import's peak memory",
        max(median(samples) for samples in peaks.values()),
        "MiB",
        MEMORY_MIB,
        [median(samples) for samples in peaks.values()],
        [f"all its processes together: {', '.join(peaks)}"],
    )
    return [ratio, memory]


def _convert(source: Path, target: Path) -> float:
    """Seconds that qemu-img takes for what an import asks of it."""
    os.sync()
    words = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2"]
    words += ["-c", "-o", "compression_type=zstd", str(source), str(target)]
    began = time.perf_counter()
    subprocess.run(words, check=True)
    took = time.perf_counter() - began
    target.unlink()
    return took


def _import_once(cloud: Cloud, source: str, *options: str) -> tuple[float, dict[int, Entry]]:
    """Import an image, and delete it; the peak memory in MiB, and the journal."""
    os.sync()
    words = [str(Path(sys.executable).with_name("fifty")), "image", "import", "imported", source]
    environment = {**os.environ, "FIFTY_IMPORT_NETWORKS": '["127.0.0.0/8"]'}
    with subprocess.Popen(
        [*words, *options, "--json"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        meter = _Meter(process.pid)
        assert process.stdout is not None
        said = process.stdout.read()
        peak = meter.end()
    assert process.returncode == 0, said
    journal = _journal(cloud, json.loads(said)["id"])
    cloud.fifty("image", "delete", "imported")
    return peak, journal


class _Meter:
    """Watches the memory of a process and all that it starts, until it is ended."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peak = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def end(self) -> float:
        """End it; the most that it saw, in MiB."""
        self._over.set()
        self._thread.join()
        return self._peak / _MIB

    def _watch(self) -> None:
        while not self._over.wait(_SAMPLE_S):
            self._peak = max(self._peak, sum(map(_memory_of, _tree(self._pid))))


def _tree(pid: int, parent: str = "") -> Iterator[int]:
    """A process and all its descendants.

    Without those that are not yet the program that they become: such a one has its parent's
    memory, not another one like it (vfork(2)).
    """
    command = _text(Path(f"/proc/{pid}/cmdline"))
    if command == parent:
        return
    yield pid
    for task in _listed(Path(f"/proc/{pid}/task")):
        for child in _text(task / "children").split():
            yield from _tree(int(child), command)


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _text(path: Path) -> str:
    """What a file of /proc says; nothing where the process has gone meanwhile."""
    try:
        return path.read_text()
    except OSError:
        return ""


def _memory_of(pid: int) -> int:
    """A process's bytes in memory; what several share counts in parts (proc(5), Pss)."""
    found = re.search(r"^Pss: +(\d+) kB$", _text(Path(f"/proc/{pid}/smaps_rollup")), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    """A folder's files by http on loopback."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_words: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _fill(path: Path) -> None:
    """Make a raw image out of this host's programs, one after the other, up to its size."""
    with path.open("wb") as image:
        for source in sorted(_CONTENT.rglob("*")):
            if not source.is_file() or source.is_symlink():
                continue
            with source.open("rb") as file:
                while (rest := FILE_BYTES - image.tell()) and (part := file.read(_CHUNK)):
                    image.write(part[:rest])
            if image.tell() == FILE_BYTES:
                return
    raise AssertionError(f"{_CONTENT} holds less than {FILE_BYTES} bytes")


def _fill_sparsely(path: Path) -> None:
    """Make a large raw image with something in it now and then."""
    with path.open("wb") as image:
        for at in range(0, SPARSE_BYTES, 64 * _MIB):
            image.seek(at)
            image.write(os.urandom(64 * 1024))
        image.truncate(SPARSE_BYTES)


def _journal(cloud: Cloud, build_id: str) -> dict[int, Entry]:
    return cloud.journal(cloud.world.store.builds.get(build_id))


def _seconds(entry: Entry) -> float:
    assert entry.started_at is not None and entry.finished_at is not None
    return (entry.finished_at - entry.started_at).total_seconds()
