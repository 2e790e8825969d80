"""Processes that outlive who started them: when one has ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from deployments import processes
from tests.waiting import eventually

#: Its first thread ends (exit(2), system call 60 of x86_64), and another one stays.
_WITHOUT_ITS_FIRST = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(600,)).start()
ctypes.CDLL(None).syscall(60, 0)
"""


def test_a_process_has_ended_when_its_last_thread_has() -> None:
    with subprocess.Popen([sys.executable, "-c", _WITHOUT_ITS_FIRST]) as started:
        stat = Path(f"/proc/{started.pid}/stat")
        try:
            eventually(lambda: ") Z " in stat.read_text(), "first thread that is a zombie")
            process = processes.identify(started.pid)
            assert process is not None
            assert not processes.wait_for_end(process, 0.1)
        finally:
            os.kill(started.pid, signal.SIGKILL)
        assert processes.wait_for_end(process, 60)
        assert processes.identify(started.pid) is None
