"""Open vSwitch on this host: asked and told by ovs-vsctl(8), one transaction a call.

The daemons are the system's where they run, or ours (`deployments.ovs_daemons`). Where
they are is told by a directory with the socket of their database.
"""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyroute2.netlink import genlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import GenericNetlinkSocket

from blocks import changes, commands
from blocks.errors import HostFault, Transient

#: Where the system's daemons have their sockets, and where ours have.
SYSTEM_DIRECTORY = Path("/run/openvswitch")
OWN_DIRECTORY = Path("/run/fifty-openvswitch")
#: Seconds that ovs-vsctl waits for ovs-vswitchd to carry out what it was told.
_PATIENCE_S = 15
#: How ovs-vsctl ends when they are over (SIGALRM).
_OUT_OF_PATIENCE = -14

Row = dict[str, Any]


@dataclass(frozen=True)
class Query:
    """A question for the rows of a table.

    Attributes:
        table: `Bridge`, `Port`, `Interface`, ...
        columns: Which columns of them.
        conditions: As ovs-vsctl's `find` takes them; see `quoted`.
    """

    table: str
    columns: tuple[str, ...]
    conditions: tuple[str, ...] = ()


def quoted(value: str) -> str:
    """A string as ovs-vsctl takes it for a value, whatever is in it."""
    return json.dumps(value)


class Vswitch:
    """An Open vSwitch.

    Args:
        directory: Where its database's socket is (OVS_RUNDIR); None means our own
            daemons' where they answer, else the system's.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._given = directory

    @property
    def directory(self) -> Path:
        """Where the socket of the database is."""
        if self._given is not None:
            return self._given
        return OWN_DIRECTORY if _listens(OWN_DIRECTORY) else SYSTEM_DIRECTORY

    @staticmethod
    def is_installed() -> bool:
        """Whether the host has the programs."""
        return shutil.which("ovs-vsctl") is not None

    def answers(self) -> bool:
        """Whether there is a database that takes connections."""
        return self.is_installed() and _listens(self.directory)

    def ask(self, *queries: Query) -> list[list[Row]]:
        """The rows that answer each query; sets and maps as Python's.

        Raises:
            HostFault: Open vSwitch does not answer.
        """
        words: list[str] = []
        for query in queries:
            columns = f"--columns={','.join(query.columns)}"
            words += ["--", columns, "find", query.table, *query.conditions]
        said = self._run("--format=json", *words)
        decoder, answers, at = json.JSONDecoder(), [], 0
        for _ in queries:
            table, end = decoder.raw_decode(said, at)
            answers.append(
                [
                    dict(zip(table["headings"], map(_value, row), strict=True))
                    for row in table["data"]
                ]
            )
            at = end + len(said[end:]) - len(said[end:].lstrip())
        return answers

    def about(self, column: str) -> set[str]:
        """A set of the one row of table Open_vSwitch: `iface_types`, `datapath_types`."""
        [[row]] = self.ask(Query("Open_vSwitch", (column,)))
        found = row[column]
        # A set of one is written as that one (RFC 7047, section 5.1).
        return set(found) if isinstance(found, list) else {found}

    def bridge_of(self, interface: str) -> str | None:
        """The bridge that an interface is in; None where it is in none."""
        said = self._run("iface-to-br", interface, ok_codes=(0, 1))
        return said.strip() or None

    def change(self, steps: Sequence[tuple[str, Sequence[Sequence[str]]]]) -> None:
        """Carry out commands in one transaction, and record each step.

        Comes back when ovs-vswitchd has done what it was told.

        Args:
            steps: For each what was done, in words, and its commands with their arguments.

        Raises:
            HostFault: It was refused.
            Transient: ovs-vswitchd does not carry it out.
        """
        texts = [[word for command in words for word in ("--", *command)] for _, words in steps]
        self._run(*(word for text in texts for word in text))
        for (what, _), text in zip(steps, texts, strict=True):
            changes.record(what, ["ovs-vsctl", *self._where(), *text])

    def _where(self) -> list[str]:
        if self.directory == SYSTEM_DIRECTORY:
            return []
        return [f"--db=unix:{self.directory}/db.sock"]

    def _run(self, *words: str, ok_codes: Sequence[int] = (0,)) -> str:
        if not self.answers():
            raise HostFault(
                f"Open vSwitch does not answer in {self.directory}",
                hint="start it (`systemctl start openvswitch-switch`), or `python -m "
                "deployments.daemons start` where FIFTY_OPENVSWITCH=own",
            )
        done = commands.run(
            *("ovs-vsctl", *self._where(), f"--timeout={_PATIENCE_S}", *words),
            timeout_s=_PATIENCE_S * 2,
            ok_codes=(*ok_codes, _OUT_OF_PATIENCE),
        )
        if done.returncode == _OUT_OF_PATIENCE:
            raise Transient(
                f"ovs-vswitchd did not do within {_PATIENCE_S} s what it was told",
                hint="see whether it runs: `ovs-appctl -t ovs-vswitchd version`",
            )
        return done.stdout


def kernel_has_datapath() -> bool:
    """Whether the kernel has Open vSwitch's datapath (its module is loaded, if need be)."""
    with GenericNetlinkSocket() as netlink:
        try:
            netlink.bind("ovs_datapath", genlmsg)
        except NetlinkError:
            return False
    return True


def _listens(directory: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.connect(str(directory / "db.sock"))
        except OSError:
            return False
    return True


def _value(said: Any) -> Any:  # noqa: ANN401 - RFC 7047's <value>
    """A value of OVSDB (RFC 7047, section 5.1) as Python's."""
    if isinstance(said, list):
        kind, content = said
        if kind == "set":
            return [_value(each) for each in content]
        if kind == "map":
            return {key: _value(value) for key, value in content}
        return content  # a uuid
    return said
