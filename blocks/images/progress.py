"""How far a `qemu-img` is that another thread waits for."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

#: Told how many percent are done.
Percents = Callable[[float], None]

_LOOK_EVERY_S = 2.0
#: QEMU's util/qemu-progress.c: `    (12.34/100%)`, each followed by a carriage return.
_SAID = re.compile(rb"\((\d+(?:\.\d+)?)/100%\)\s*$")
_LONGEST = 64


@contextmanager
def told_to(tell: Percents, every_s: float = _LOOK_EVERY_S) -> Iterator[Path]:
    """Tell now and then, from a thread of its own, what a `qemu-img -p` says meanwhile.

    Args:
        tell: Told each time that it is another figure.
        every_s: Seconds between two looks.

    Yields:
        The file that takes the program's standard output; it is in memory only.
    """
    handle = os.memfd_create("progress", os.MFD_CLOEXEC)
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(handle, tell, every_s, over), daemon=True)
    watcher.start()
    try:
        yield Path(f"/proc/{os.getpid()}/fd/{handle}")
    finally:
        over.set()
        watcher.join()
        os.close(handle)


def _watch(handle: int, tell: Percents, every_s: float, over: threading.Event) -> None:
    told = None
    while not over.wait(every_s):
        length = os.fstat(handle).st_size
        last = os.pread(handle, _LONGEST, max(0, length - _LONGEST))
        said = _SAID.search(last)
        if said is not None and said[1] != told:
            told = said[1]
            tell(float(told))
