"""Whether it takes any network card, asks DHCP, and lets people in."""

from __future__ import annotations

import re
from collections.abc import Iterator

from blocks.images.check.guest import Guest
from blocks.images.check.points import Points
from blocks.images.check.report import Notes

NETWORK = Points()

_MAC = r"(?:[0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}"
#: Directory, endings, and the pattern of a line that ties a card's name or setup to its MAC.
_MAC_FILES = (
    ("/etc/udev/rules.d", (".rules",), rf"^[^#\n]*ATTR\{{address\}}==\"{_MAC}\".*$"),
    ("/etc/sysconfig/network-scripts", ("",), rf"^[ \t]*(?:HWADDR|MACADDR)=\"?{_MAC}.*$"),
    (
        "/etc/systemd/network",
        (".link", ".network"),
        rf"^[ \t]*\w*MACAddress[ \t]*=.*{_MAC}.*$",
    ),
    ("/etc/netplan", (".yaml",), rf"^[^#\n]*macaddress:[ \t]*[\"']?{_MAC}.*$"),
    (
        "/etc/NetworkManager/system-connections",
        ("",),
        rf"^[ \t]*(?:cloned-)?mac-address[ \t]*=[ \t]*{_MAC}.*$",
    ),
    ("/etc/network/interfaces.d", ("",), rf"^[ \t]*hwaddress[ \t]+(?:ether[ \t]+)?{_MAC}.*$"),
    ("/etc/network", ("interfaces",), rf"^[ \t]*hwaddress[ \t]+(?:ether[ \t]+)?{_MAC}.*$"),
)
_NETWORKD_FOLDERS = ("/etc/systemd/network", "/usr/lib/systemd/network")
_BY_DHCP = re.compile(r"(?im)^[ \t]*DHCP[ \t]*=[ \t]*(?:yes|true|ipv4|both)")
_OF_A_CARD = re.compile(r"(?m)^[ \t]*(?:Name|Type)[ \t]*=[ \t]*(?:e|\*|ether)")
_ADDRESSES = re.compile(r"(?m)^[ \t]*addresses:[ \t]*(?:\[[ \t]*\S.*|\n[ \t]*-[ \t]*.*)")
_REFUSES = re.compile(r"policy drop|:INPUT DROP|-A INPUT -j (?:DROP|REJECT)|-P INPUT DROP")
_LETS_SSH_IN = re.compile(r"dport (?:22|ssh|\{[^}\n]{0,200}\b(?:22|ssh)\b)|--dports? \S*\b22\b")


@NETWORK.point("fixed-mac", "No network card's address is written down in it")
def fixed_mac(guest: Guest, notes: Notes) -> None:
    """Every VM has another MAC: what is tied to one does not come up."""
    for folder, endings, pattern in _MAC_FILES:
        for path, text in guest.texts(folder, *endings):
            for line in re.findall(pattern, text, re.MULTILINE):
                notes.fail(f"{path}: {line.strip()}", f"remove {path}, or the line")
    notes.nothing(", ".join(dict.fromkeys(folder for folder, *_ in _MAC_FILES)))


@NETWORK.point("dhcp", "It asks DHCP for its address")
def dhcp(guest: Guest, notes: Notes) -> None:
    """Something configures the network by DHCP, and nothing gives it a fixed address."""
    for where in _static(guest):
        notes.fail(where, "let it ask DHCP")
    for where in _asking(guest):
        notes.saw(where)
        return
    notes.fail("nothing asks DHCP", "install cloud-init, or configure networkd or ifupdown")


def _asking(guest: Guest) -> Iterator[str]:
    if guest.is_micro:
        yield "micro's init runs udhcpc on every card"
    for folder in _NETWORKD_FOLDERS:
        for path, text in guest.texts(folder, ".network"):
            if _BY_DHCP.search(text) and _OF_A_CARD.search(text):
                yield f"{path}: DHCP"
    for path, text in guest.texts("/etc/netplan", ".yaml"):
        if re.search(r"(?m)^[ \t]*dhcp4:[ \t]*(?:true|yes)", text):
            yield f"{path}: dhcp4"
    for path, text in _interfaces(guest):
        if re.search(r"(?m)^[ \t]*iface[ \t]+\S+[ \t]+inet[ \t]+dhcp", text):
            yield f"{path}: inet dhcp"
    for path, text in guest.texts("/etc/sysconfig/network-scripts", ""):
        if re.search(r"(?m)^[ \t]*BOOTPROTO=\"?dhcp", text):
            yield f"{path}: BOOTPROTO=dhcp"
    if guest.access.exists("/usr/bin/cloud-init") and not _disabled_network(guest):
        yield "/usr/bin/cloud-init configures the network, by DHCP unless told otherwise"
    if guest.unit_enabled("NetworkManager.service"):
        yield "NetworkManager is enabled, which asks DHCP for a card it knows nothing of"


def _static(guest: Guest) -> Iterator[str]:
    for path, text in guest.texts("/etc/systemd/network", ".network"):
        if found := re.search(r"(?m)^[ \t]*Address[ \t]*=[ \t]*(?!127\.|::1)\S+", text):
            yield f"{path}: {found[0].strip()}"
    for path, text in guest.texts("/etc/netplan", ".yaml"):
        if found := _ADDRESSES.search(text):
            yield f"{path}: {found[0].strip()}"
    for path, text in _interfaces(guest):
        if found := re.search(r"(?m)^[ \t]*iface[ \t]+(?!lo\b)\S+[ \t]+inet[ \t]+static", text):
            yield f"{path}: {found[0].strip()}"
    for path, text in guest.texts("/etc/sysconfig/network-scripts", ""):
        if "ifcfg-lo" not in path and (found := re.search(r"(?m)^[ \t]*IPADDR\d?=\S+", text)):
            yield f"{path}: {found[0].strip()}"


def _interfaces(guest: Guest) -> Iterator[tuple[str, str]]:
    yield from guest.texts("/etc/network", "interfaces")
    yield from guest.texts("/etc/network/interfaces.d", "")


def _disabled_network(guest: Guest) -> bool:
    network = guest.cloud_config.get("network")
    return isinstance(network, dict) and network.get("config") == "disabled"


@NETWORK.point("ssh-server", "An SSH server starts at boot")
def ssh_server(guest: Guest, notes: Notes) -> None:
    """The program is there, and a unit, an rc link, or micro's init starts it."""
    if guest.is_micro:
        if guest.access.exists("/bin/dropbear"):
            notes.saw("micro's init starts /bin/dropbear")
        else:
            notes.fail("/bin/dropbear is not there")
        return
    programs = [one for one in ("/usr/sbin/sshd", "/usr/sbin/dropbear") if guest.access.exists(one)]
    if not programs:
        notes.fail("there is neither sshd nor dropbear", "install openssh-server")
        return
    notes.saw(f"{programs[0]} is there")
    if guest.access.exists("/etc/ssh/sshd_not_to_be_run"):
        notes.fail("/etc/ssh/sshd_not_to_be_run keeps it from starting", "remove that file")
    units = ("ssh.service", "sshd.service", "ssh.socket", "sshd.socket", "dropbear.service")
    wanted = [link for unit in units if (link := guest.unit_enabled(unit))]
    wanted += [f"/etc/rc3.d/{name}" for name in guest.access.names("/etc/rc3.d")
               if re.fullmatch(r"S\d\d(?:ssh|sshd|dropbear)", name)]  # fmt: skip
    masked = [unit for unit in units if guest.unit_masked(unit)]
    if masked and not any(link.endswith("socket") for link in wanted):
        notes.fail(f"{masked[0]} is masked", f"systemctl unmask {masked[0]}")
    elif wanted:
        notes.saw(wanted[0])
    else:
        notes.fail("nothing starts it at boot", "systemctl enable ssh")


@NETWORK.point("key-login", "The SSH server takes keys")
def key_login(guest: Guest, notes: Notes) -> None:
    """Sshd's configuration does not switch public keys off."""
    files = list(guest.texts("/etc/ssh", "sshd_config"))
    files += guest.texts("/etc/ssh/sshd_config.d", ".conf")
    for path, text in files:
        if re.search(r"(?im)^[ \t]*PubkeyAuthentication[ \t]+no\b", text):
            notes.fail(f"{path}: PubkeyAuthentication no", "take the line out")
        if re.search(r"(?im)^[ \t]*PermitRootLogin[ \t]+yes\b", text):
            notes.warn(f"{path}: PermitRootLogin yes", "prohibit-password is enough for keys")
        if re.search(r"(?im)^[ \t]*PermitEmptyPasswords[ \t]+yes\b", text):
            notes.fail(f"{path}: PermitEmptyPasswords yes", "take the line out")
    notes.nothing(", ".join(path for path, _text in files) or "files: the server's defaults")


@NETWORK.point("firewall", "No firewall of its own is in the way")
def firewall(guest: Guest, notes: Notes) -> None:
    """Security groups filter at the port; a firewall inside must at least let SSH in."""
    ufw = guest.access.text("/etc/ufw/ufw.conf") or ""
    if re.search(r"(?im)^[ \t]*ENABLED[ \t]*=[ \t]*yes", ufw):
        rules = guest.access.text("/etc/ufw/user.rules") or ""
        _judge(notes, "/etc/ufw/ufw.conf: ENABLED=yes", lets_in=bool(_LETS_SSH_IN.search(rules)))
    if (link := guest.unit_enabled("firewalld.service")) is not None:
        zone = guest.access.text("/etc/firewalld/zones/public.xml")
        _judge(notes, link, lets_in=zone is None or 'service name="ssh"' in zone)
    for unit, path in (
        ("nftables.service", "/etc/nftables.conf"),
        ("netfilter-persistent.service", "/etc/iptables/rules.v4"),
        ("iptables.service", "/etc/sysconfig/iptables"),
    ):
        rules = guest.access.text(path) or ""
        if guest.unit_enabled(unit) and _REFUSES.search(rules):
            _judge(notes, f"{unit} loads {path}", lets_in=bool(_LETS_SSH_IN.search(rules)))
    notes.nothing("ufw, firewalld, nftables and iptables that would start at boot")


def _judge(notes: Notes, what: str, *, lets_in: bool) -> None:
    if lets_in:
        notes.warn(f"{what}; SSH is let in", "security groups do this at the port")
    else:
        notes.fail(f"{what}; SSH is not let in", "switch it off: the port has security groups")
