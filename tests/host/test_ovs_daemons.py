"""Open vSwitch's daemons: started where nothing runs, shared, and stopped by the last one only.

In mount, network and PID namespaces with an empty /run there is no Open vSwitch, whatever
runs on this host, and what is started there is nobody else's.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.host

_FRESH = """
set -e
mount -t tmpfs none /run
ip link set lo up
"$@"
exit $?  # no exec: the shell is process 1, for which the daemons' parents leave them
"""

_STORY = """
import json, os, signal, sys
from pathlib import Path
from blocks.fabric.segments import Vswitch
from blocks.commands import run
from deployments import ovs_daemons as daemons, processes

first, second = Path(sys.argv[1], "first"), Path(sys.argv[1], "second")
first.mkdir(), second.mkdir()
vswitch = Vswitch()
told = {"before": vswitch.answers(), "started": daemons.use(first), "then": vswitch.answers()}
told["where"] = str(vswitch.directory)
told["again"] = daemons.use(second)
told["first leaves"] = daemons.leave(first)

# One that was killed is started again, and finds what the other one still knows.
vswitch.change([("", [["add-br", "br-x"], ["set", "Bridge", "br-x", "datapath_type=netdev"]])])
victim = daemons.ours()["ovs-vswitchd"]
os.kill(victim.pid, signal.SIGKILL)
processes.wait_for_end(victim, 20)
told["after a kill"] = daemons.use(second)
told["still there"] = run("ip", "-br", "link", "show", "br-x").stdout.split()[0]

told["second leaves, there is a bridge"] = daemons.leave(second)
vswitch.change([("", [["del-br", "br-x"]])])
second.rmdir()  # a home that is gone does not count as a user
ours = daemons.ours()
told["nobody is left"] = daemons.leave(first)
told["left running"] = [name for name, process in ours.items() if processes.is_alive(process)]
told["after"] = vswitch.answers()
told["files at last"] = daemons.OWN_DIRECTORY.exists()
told["not there at all"] = daemons.leave(first)

# The system's are used where they run.
daemons.start(daemons.SYSTEM_DIRECTORY)
told["the system's"] = daemons.use(first)
told["it is"] = str(vswitch.directory)
told["ours"] = list(daemons.ours())
told["the system's stay"] = daemons.leave(first)
told["it answers"] = vswitch.answers()
daemons.stop(daemons.SYSTEM_DIRECTORY)
print(json.dumps(told))
"""


def test_the_daemons_of_two_homes(session_directory: Path) -> None:
    homes = session_directory / "ovs-homes"
    homes.mkdir()
    namespaces = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
    done = subprocess.run(
        [*namespaces, "sh", "-c", _FRESH, "sh", sys.executable, "-c", _STORY, str(homes)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "before": False,
        "started": ["ovsdb-server", "ovs-vswitchd"],
        "then": True,
        "where": "/run/fifty-openvswitch",
        "again": [],
        "first leaves": [],
        "after a kill": ["ovs-vswitchd"],
        "still there": "br-x",
        "second leaves, there is a bridge": [],
        "nobody is left": ["ovs-vswitchd", "ovsdb-server"],
        "left running": [],
        "after": False,
        "files at last": False,
        "not there at all": [],
        "the system's": [],
        "it is": "/run/openvswitch",
        "ours": [],
        "the system's stay": [],
        "it answers": True,
    }
