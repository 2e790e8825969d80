"""A machine on which nothing runs: this one's files, with processes, network and /run of its own.

Its network is a loopback only, /dev/kvm is as a kernel without udev makes it, and nobody
else's links, processes or daemons are seen. So what is there before and after can be
compared to the last line. When its first process ends, nothing in it goes on.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

PROJECT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 900

_FIRST_PROCESS = """
set -e
findmnt --noheadings --raw --output TARGET | grep ^/run/ | sort -r | xargs -r umount --lazy
for directory in /run /var/lib/libvirt /var/log/libvirt; do mount -t tmpfs none $directory; done
mkdir -p /var/lib/libvirt/qemu /run/lock /run/netns
mount --bind /run/netns /run/netns  # as the first `ip netns add` after a boot leaves it
if test -e /dev/kvm; then
  mknod -m 0600 /run/kvm c 10 232
  mount --bind /run/kvm /dev/kvm
fi
ip link set lo up
echo ready
cat  # until our end of the pipe is closed; the shell takes the exit status of orphans
"""

#: What it prints of the machine, a line each; the host's own tools tell it. A process that has
#: ended (Z), and whose parent is about to ask how, is none.
_INVENTORY = """
ip -brief link | cut -d' ' -f1 | sed 's/^/link /'
ip netns list | sed 's/^/namespace /'
nft list tables
sed 's/^/mount /' /proc/self/mountinfo | cut -d' ' -f1,6
ps -e --format ppid=,stat=,args= --cols 300 |
  sed "/^ *$$ /d;/^ *[0-9]* Z/d;s/^ *[0-9]* *[^ ]* */process /"
stat -c '%n %U:%G %a' /dev/kvm
ls -d /run/fifty* /run/netns/* "$FIFTY_HOME" 2>/dev/null
losetup --list --noheadings | grep --fixed-strings "$FIFTY_HOME"
"""


class FreshMachine:
    """Runs commands on such a machine, until the `with` block ends.

    Args:
        home: FIFTY_HOME of what is run there.
    """

    def __init__(self, home: Path) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "FIFTY_"))}
        self._environment = {**kept, "FIFTY_HOME": str(home)}

    def __enter__(self) -> FreshMachine:
        namespaces = ("--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
        self._unshare = subprocess.Popen(
            ["unshare", *namespaces, "sh", "-c", _FIRST_PROCESS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._unshare.stdout is not None
        assert self._unshare.stdout.readline() == "ready\n"
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children")
        self._first = children.read_text().strip()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._unshare.communicate()

    def run(
        self, *words: str | Path, code: int = 0, variables: Mapping[str, str] | None = None
    ) -> str:
        """Run a program there, in the project's directory; what it said, errors included.

        Args:
            words: The program and its arguments.
            code: The exit code that it must have.
            variables: More environment variables.
        """
        entered = ("nsenter", f"--target={self._first}", "--mount", "--net", "--pid")
        done = subprocess.run(
            [*entered, f"--wdns={PROJECT}", *words],
            env={**self._environment, **(variables or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == code, f"{words} ended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    def fifty(self, *words: str) -> object:
        """Run `fifty ... --json` there."""
        document: object = json.loads(self.run(PROJECT / ".venv/bin/fifty", *words, "--json"))
        return document

    def inventory(self) -> list[str]:
        """What is there: links, namespaces, tables, mounts, processes, devices, files."""
        return sorted(set(self.run("sh", "-c", _INVENTORY + "true").splitlines()))
