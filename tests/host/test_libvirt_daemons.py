"""libvirt's daemons: started where nothing runs, shared, and stopped by the last one only.

In mount, network and PID namespaces with an empty /run and /var/lib/libvirt there is no
libvirt, whatever runs on this host, and what is started there is nobody else's.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.host, pytest.mark.slow]

_FRESH = """
set -e
for directory in /run /var/lib/libvirt /var/log/libvirt; do mount -t tmpfs none $directory; done
mkdir -p /var/lib/libvirt/qemu
ip link set lo up
"$@"
exit $?  # no exec: the shell is process 1, and takes the exit status of QEMU, which is
         # waited for by libvirt, and would not end for it otherwise
"""

_STORY = """
import json, sys
from pathlib import Path
import libvirt
from deployments import libvirt_daemons as daemons, processes

first, second = Path(sys.argv[1], "first"), Path(sys.argv[1], "second")
first.mkdir(), second.mkdir()
told = {"before": daemons.answers(), "started": daemons.use(first)}
ours = daemons.ours()
told["then"] = daemons.answers()
told["again"] = daemons.use(second)
told["first leaves"] = daemons.leave(first)

connection = libvirt.open(daemons.URI)
domain = connection.createXML(sys.argv[2], libvirt.VIR_DOMAIN_START_PAUSED)
told["second leaves, a domain runs"] = daemons.leave(second)
domain.destroy()
connection.close()

second.rmdir()  # a home that is gone does not count as a user
told["nobody is left"] = daemons.leave(first)
told["left running"] = [name for name, process in ours.items() if processes.is_alive(process)]
told["after"] = daemons.answers()
print(json.dumps(told))
"""

_DOMAIN = """
<domain type='qemu'><name>sleeper</name><memory unit='MiB'>32</memory>
  <os><type arch='x86_64'>hvm</type></os>
  <devices><emulator>/usr/bin/qemu-system-x86_64</emulator></devices>
</domain>
"""


def test_the_daemons_of_two_homes(session_directory: Path) -> None:
    homes = session_directory / "homes"
    homes.mkdir()
    # When process 1 of a PID namespace ends, however it does, nothing in it goes on.
    namespaces = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
    done = subprocess.run(
        [*namespaces, "sh", "-c", _FRESH, "sh", sys.executable, "-c", _STORY, str(homes), _DOMAIN],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "before": False,
        "started": ["virtlogd", "libvirtd"],
        "then": True,
        "again": [],
        "first leaves": [],
        "second leaves, a domain runs": [],
        "nobody is left": ["libvirtd", "virtlogd"],
        "left running": [],
        "after": False,
    }
