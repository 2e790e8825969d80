"""Things of other people's making that look like ours: same names, no mark, or another site's."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from blocks import marks

DNSMASQ = "--conf-file={}/networks/{}/dhcp/dnsmasq.conf"
_URI = ("virsh", "-q", "-c", "qemu:///system")


def run(*words: str, content: str = "") -> str:
    """Run a program that must succeed; its standard output."""
    done = subprocess.run(words, input=content, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


class Lookalikes:
    """Other people's things, beside ours.

    Args:
        stack: Removes each of them in the end, whatever became of it.
        home: Our FIFTY_HOME.
        site: Our site.
        elsewhere: A directory that is not ours.
    """

    def __init__(self, stack: ExitStack, home: Path, site: str, elsewhere: Path) -> None:
        self._stack = stack
        self._home = home
        self._elsewhere = elsewhere
        self._other = next(each for each in iter(lambda: secrets.token_hex(2), "") if each != site)
        self._looks: list[Callable[[], str]] = []
        self._links()
        self._namespaces()
        self._tables()
        self._domains()
        self._servers()
        self._files()

    def seen(self) -> list[str]:
        """How each of them is now."""
        return [look() for look in self._looks]

    def _remember(self, look: Callable[[], str], *removal: str) -> None:
        self._looks.append(look)
        self._stack.callback(subprocess.run, removal, capture_output=True, check=False)

    def _links(self) -> None:
        aliases = {
            marks.tap_name(str(uuid.uuid4())): "",
            marks.bridge_name(str(uuid.uuid4())): "somebody's",
            marks.dhcp_leg_name(str(uuid.uuid4())): marks.link_alias(
                self._other, "port", str(uuid.uuid4())
            ),
            marks.vxlan_name(str(uuid.uuid4())): f"fifty:{self._other}",
        }
        for name, alias in aliases.items():
            if name.startswith("tap"):
                run("ip", "tuntap", "add", "dev", name, "mode", "tap")
            else:
                run("ip", "link", "add", name, "type", "bridge")
            if alias:
                run("ip", "link", "set", name, "alias", alias)
            self._remember(partial(_link, name), "ip", "link", "delete", name)

    def _namespaces(self) -> None:
        alias = marks.link_alias(self._other, "router", str(uuid.uuid4()))
        for name, mark in (
            (marks.dhcp_namespace(str(uuid.uuid4())), ""),
            (marks.router_namespace(str(uuid.uuid4())), alias),
        ):
            run("ip", "netns", "add", name)
            if mark:
                run("ip", "-n", name, "link", "set", "lo", "alias", mark)
            self._remember(partial(_link, "lo", name), "ip", "netns", "delete", name)

    def _tables(self) -> None:
        for family, name in (
            ("bridge", marks.firewall_table(self._other)),
            ("inet", marks.firewall_table(self._other)),
            ("ip", f"{marks.firewall_table(self._other)}_{uuid.uuid4()}"),
            ("inet", f"fifty_{self._other}x"),
        ):
            run("nft", f"add table {family} {name}")
            run("nft", f"add chain {family} {name} guard-{uuid.uuid4()}")
            look = partial(run, "nft", "list", "table", family, name)
            self._remember(look, "nft", "delete", "table", family, name)

    def _domains(self) -> None:
        mark = f'<instance xmlns="{marks.DOMAIN_METADATA_URI}" site="{self._other}"/>'
        for metadata in ("", f"<metadata>{mark}</metadata>"):
            identity = str(uuid.uuid4())
            name = marks.domain_name(identity, "hello")
            run(
                *(*_URI, "define", "/dev/stdin"),
                content=f"<domain type='qemu'><name>{name}</name><uuid>{identity}</uuid>{metadata}"
                "<memory>65536</memory><os><type>hvm</type></os></domain>",
            )
            self._remember(partial(run, *_URI, "dumpxml", name), *_URI, "undefine", name)

    def _servers(self) -> None:
        """A dnsmasq with its file elsewhere, and a process that only speaks of one of ours."""
        network = str(uuid.uuid4())
        config = self._elsewhere / "networks" / network / "dhcp" / "dnsmasq.conf"
        config.parent.mkdir(parents=True)
        config.write_text("port=0\nno-daemon\n")
        for words in (
            ("dnsmasq", DNSMASQ.format(self._elsewhere, network)),
            ("sh", "-c", "read line", f"{DNSMASQ.format(self._home, network)}x"),
        ):
            process = subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
            self._looks.append(partial(_state, process))
            self._stack.callback(process.wait)
            self._stack.callback(process.kill)

    def _files(self) -> None:
        """In our own rooms, what is not as we make it."""
        someones, others = str(uuid.uuid4()), str(uuid.uuid4())
        marker = json.dumps({"instance": others, "site": self._other})
        for path, content in (
            (f"instances/{someones}/disk.qcow2", "somebody's"),
            (f"instances/{others}/fifty-instance.json", marker),
            ("instances/notes/disk.qcow2", "somebody's"),
            ("networks/notes/dhcp/dnsmasq.conf", "somebody's"),
            ("volumes/notes.qcow2", "somebody's"),
            ("images/build/notes/disk.raw", "somebody's"),
            ("images/store/notes.qcow2", "somebody's"),
        ):
            file = self._home / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
            self._looks.append(partial(_content, file))
            if "/" in path.partition("/")[2]:
                self._stack.callback(_forget, file, self._home / path.split("/")[0])
            else:
                self._stack.callback(file.unlink, missing_ok=True)


def _forget(file: Path, room: Path) -> None:
    """Remove a file with the directories that were made for it."""
    file.unlink(missing_ok=True)
    for parent in file.parents:
        if parent == room or any(parent.iterdir()):
            return
        shutil.rmtree(parent)


def _content(file: Path) -> str:
    return f"{file} {file.stat().st_mtime_ns} {file.read_text()}"


def _state(process: subprocess.Popen[bytes]) -> str:
    """Its pid, and that it runs."""
    return f"{process.pid} {process.poll()}"


def _link(name: str, namespace: str = "") -> str:
    where = ("-n", namespace) if namespace else ()
    [link] = json.loads(run("ip", *where, "-json", "link", "show", "dev", name))
    return f"{link['ifindex']} {link['ifname']} {link.get('ifalias')}"


@contextmanager
def beside(home: Path, site: str, elsewhere: Path) -> Iterator[Lookalikes]:
    """Other people's things are there as long as the block runs."""
    with ExitStack() as stack:
        yield Lookalikes(stack, home, site, elsewhere)
