"""libvirt's daemons: started where nothing runs, shared, and stopped by the last one only.

With them /dev/kvm: opened to QEMU's group as udev does it, and put back by the last one.
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
mknod -m 0600 /run/kvm c 10 232
mount --bind /run/kvm /dev/kvm
ip link set lo up
"$@"
exit $?  # no exec: the shell is process 1, and takes the exit status of QEMU, which is
         # waited for by libvirt, and would not end for it otherwise
"""

_STORY = """
import grp, json, os, sys
from pathlib import Path
import libvirt
from blocks.changes import collecting
from deployments import libvirt_daemons as daemons, processes

def kvm():
    found = os.stat("/dev/kvm")
    return f"{found.st_uid} {grp.getgrgid(found.st_gid).gr_name} {found.st_mode & 0o777:o}"

def leave_and_tell(home):
    with collecting() as changes:
        stopped = daemons.leave(home)
    return [*stopped, *(change.what for change in changes if "kvm" in change.what)]

first, second = Path(sys.argv[1], "first"), Path(sys.argv[1], "second")
first.mkdir(), second.mkdir()
told = {"kvm at first": kvm(), "before": daemons.answers()}
with collecting() as changes:
    told["started"] = daemons.use(first)
told["changes"] = [change.what.partition(",")[0] for change in changes]
told["kvm"] = kvm()
ours = daemons.ours()
told["then"] = daemons.answers()
told["again"] = daemons.use(second)
told["first leaves"] = leave_and_tell(first)

connection = libvirt.open(daemons.URI)
domain = connection.createXML(sys.argv[2], libvirt.VIR_DOMAIN_START_PAUSED)
told["second leaves, a domain runs"] = daemons.leave(second)
domain.destroy()
connection.close()

second.rmdir()  # a home that is gone does not count as a user
told["kvm as long as one is left"] = kvm()
told["nobody is left"] = leave_and_tell(first)
told["kvm at last"] = kvm()
told["files at last"] = Path("/run/fifty").exists()

# The device is what somebody else made of it meanwhile: so it stays.
daemons.use(first)
os.chmod("/dev/kvm", 0o666)
told["kvm was changed"] = leave_and_tell(first)
told["kvm stays"] = kvm()
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


@pytest.mark.skipif(not Path("/dev/kvm").exists(), reason="this host has no /dev/kvm")
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
        "kvm at first": "0 root 600",
        "before": False,
        "started": ["virtlogd", "libvirtd"],
        "changes": [
            "Gave /dev/kvm the group kvm and mode 0660",
            "Started virtlogd",
            "Started libvirtd",
        ],
        "kvm": "0 kvm 660",
        "then": True,
        "again": [],
        "first leaves": [],
        "second leaves, a domain runs": [],
        "kvm as long as one is left": "0 kvm 660",
        "nobody is left": ["libvirtd", "virtlogd", "Made /dev/kvm 0:0 0600 again"],
        "kvm at last": "0 root 600",
        "files at last": False,
        "kvm was changed": ["libvirtd", "virtlogd"],
        "kvm stays": "0 kvm 666",
        "left running": [],
        "after": False,
    }
