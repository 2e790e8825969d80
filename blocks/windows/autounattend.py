"""The answer files of Windows Setup, built with lxml: installation, and what sysprep leaves.

Names and order are those of Microsoft's "Unattended Windows Setup Reference". A pass is a
`settings` element, in it a `component` for each part of Windows that is told something.
"""

from __future__ import annotations

import base64

from lxml import etree

from blocks.windows.answers import WindowsAnswers

_NAMESPACE = "urn:schemas-microsoft-com:unattend"
_WCM = "http://schemas.microsoft.com/WMIConfig/2002/State"
_TOKEN = "31bf3856ad364e35"  # noqa: S105 - Microsoft's public key token, in every component
#: Where the answers' and the drivers' media may turn up, beside the installer's own.
LETTERS = "DEFGHIJ"
#: The folder of drivers; Setup also looks for one of this name by itself.
DRIVERS_FOLDER = "$WinPEDriver$"
#: The folder of the answers' medium with all but `Autounattend.xml`.
SCRIPTS_FOLDER = "fifty"
_MIB_EFI, _MIB_RESERVED, _MIB_SYSTEM = 260, 16, 500
_HIGH_PERFORMANCE = "8c5e7fda-e8bf-4a96-9a85-a6e23a8c635c"
_NETWORK_DIALOG = r"HKLM\SYSTEM\CurrentControlSet\Control\Network\NewNetworkWindowOff"
_UNKNOWN_NETWORKS = (
    r"HKLM\SOFTWARE\Policies\Microsoft\Windows NT\CurrentVersion\NetworkList\Signatures"
    r"\010103000F0000F0010000000F0000F0C967A3643C3AD745950DA7859209176EF5B87C875FA20DF21951640E807D7C24"
)
_CLOUDBASE = r"C:\Program Files\Cloudbase Solutions\Cloudbase-Init"


def compose_installation(answers: WindowsAnswers) -> bytes:
    """`Autounattend.xml`, which Setup finds at the root of any medium."""
    root = _root()
    _windows_pe(root, answers)
    specialize = _settings(root, "specialize")
    shell = _component(specialize, "Microsoft-Windows-Shell-Setup")
    _text(shell, "ComputerName", answers.computer_name or "*")
    _text(shell, "RegisteredOwner", answers.owner)
    _text(shell, "TimeZone", answers.time_zone)
    _remote_desktop(specialize)
    _commands(
        _component(specialize, "Microsoft-Windows-Deployment"),
        "RunSynchronous",
        "RunSynchronousCommand",
        "Path",
        (
            # "Is this a home, work, or public network?" is not asked, and the answer is private.
            f"reg add {_NETWORK_DIALOG} /f",
            f'reg add "{_UNKNOWN_NETWORKS}" /v Category /t REG_DWORD /d 1 /f',
            f"powercfg /setactive {_HIGH_PERFORMANCE}",
            "powercfg /hibernate off",
        ),
    )
    _first_logon(_settings(root, "oobeSystem"), answers)
    return _bytes(root)


def compose_generalized(answers: WindowsAnswers) -> bytes:
    """The answers that sysprep leaves in the image, for each guest's own first boot."""
    root = _root()
    generalize = _settings(root, "generalize")
    # Devices stay known: the guests' machines have the very same ones.
    pnp = _component(generalize, "Microsoft-Windows-PnpSysprep")
    _text(pnp, "PersistAllDeviceInstalls", "true")
    _text(pnp, "DoNotCleanUpNonPresentDevices", "true")
    # Windows can be rearmed a few times only: an image does not use one up.
    _text(_component(generalize, "Microsoft-Windows-Security-SPP"), "SkipRearm", "1")
    specialize = _settings(root, "specialize")
    _remote_desktop(specialize)
    _commands(
        _component(specialize, "Microsoft-Windows-Deployment"),
        "RunSynchronous",
        "RunSynchronousCommand",
        "Path",
        (
            f'cmd /c ""{_CLOUDBASE}\\Python\\Scripts\\cloudbase-init.exe" --config-file '
            f'"{_CLOUDBASE}\\conf\\cloudbase-init-unattend.conf" && exit 1 || exit 2"',
        ),
        will_reboot="OnRequest",
    )
    oobe = _settings(root, "oobeSystem")
    _oobe(_component(oobe, "Microsoft-Windows-Shell-Setup"), answers)
    _international(_component(oobe, "Microsoft-Windows-International-Core"), answers)
    return _bytes(root)


def _windows_pe(root: etree._Element, answers: WindowsAnswers) -> None:
    settings = _settings(root, "windowsPE")
    language = _component(settings, "Microsoft-Windows-International-Core-WinPE")
    _text(_sub(language, "SetupUILanguage"), "UILanguage", answers.language)
    _international(language, answers)
    paths = _sub(_component(settings, "Microsoft-Windows-PnpCustomizationsWinPE"), "DriverPaths")
    for number, letter in enumerate(LETTERS, 1):
        path = _sub(paths, "PathAndCredentials")
        path.set(f"{{{_WCM}}}action", "add")
        path.set(f"{{{_WCM}}}keyValue", str(number))
        _text(path, "Path", f"{letter}:\\{DRIVERS_FOLDER}")
    setup = _component(settings, "Microsoft-Windows-Setup")
    target = _disk(setup, answers)
    image = _sub(_sub(setup, "ImageInstall"), "OSImage")
    chosen = _item(_sub(image, "InstallFrom"), "MetaData")
    by_number = isinstance(answers.edition, int)
    _text(chosen, "Key", "/IMAGE/INDEX" if by_number else "/IMAGE/NAME")
    _text(chosen, "Value", str(answers.edition))
    onto = _sub(image, "InstallTo")
    _text(onto, "DiskID", "0")
    _text(onto, "PartitionID", str(target))
    user = _sub(setup, "UserData")
    _text(user, "AcceptEula", "true" if answers.accept_license else "false")
    _text(user, "FullName", answers.owner)
    if answers.product_key is not None:
        key = _sub(user, "ProductKey")
        _text(key, "Key", answers.product_key)
        _text(key, "WillShowUI", "OnError")


def _disk(setup: etree._Element, answers: WindowsAnswers) -> int:
    """The first disk's partitions, and which of them is Windows' own."""
    if answers.firmware == "uefi":
        made = [("EFI", _MIB_EFI), ("MSR", _MIB_RESERVED), ("Primary", None)]
        formatted = {1: ("FAT32", "System"), 3: ("NTFS", "Windows")}
    else:
        made = [("Primary", _MIB_SYSTEM), ("Primary", None)]
        formatted = {1: ("NTFS", "System"), 2: ("NTFS", "Windows")}
    configuration = _sub(setup, "DiskConfiguration")
    disk = _item(configuration, "Disk")
    create = _sub(disk, "CreatePartitions")
    for number, (kind, size) in enumerate(made, 1):
        partition = _item(create, "CreatePartition")
        _text(partition, "Order", str(number))
        if size is None:
            _text(partition, "Extend", "true")
        else:
            _text(partition, "Size", str(size))
        _text(partition, "Type", kind)
    modify = _sub(disk, "ModifyPartitions")
    for order, (number, (system, label)) in enumerate(formatted.items(), 1):
        partition = _item(modify, "ModifyPartition")
        if answers.firmware == "bios" and number == 1:
            _text(partition, "Active", "true")
        _text(partition, "Format", system)
        _text(partition, "Label", label)
        if label == "Windows":
            _text(partition, "Letter", "C")
        _text(partition, "Order", str(order))
        _text(partition, "PartitionID", str(number))
    _text(disk, "DiskID", "0")
    _text(disk, "WillWipeDisk", "true")
    _text(configuration, "WillShowUI", "OnError")
    return max(formatted)


def _remote_desktop(specialize: etree._Element) -> None:
    """Remote Desktop, for those who can log in before they see anything; the firewall lets it."""
    sessions = _component(specialize, "Microsoft-Windows-TerminalServices-LocalSessionManager")
    _text(sessions, "fDenyTSConnections", "false")
    stations = _component(specialize, "Microsoft-Windows-TerminalServices-RDP-WinStationExtensions")
    _text(stations, "UserAuthentication", "1")
    firewall = _component(specialize, "Networking-MPSSVC-Svc")
    group = _item(_sub(firewall, "FirewallGroups"), "FirewallGroup")
    group.set(f"{{{_WCM}}}keyValue", "RemoteDesktop")
    _text(group, "Active", "true")
    _text(group, "Group", "@FirewallAPI.dll,-28752")
    _text(group, "Profile", "all")


def _first_logon(settings: etree._Element, answers: WindowsAnswers) -> None:
    """The administrator logs in by itself, as long as `prepare.ps1` has work; it ends that."""
    _international(_component(settings, "Microsoft-Windows-International-Core"), answers)
    shell = _component(settings, "Microsoft-Windows-Shell-Setup")
    password = answers.password.get_secret_value()
    logon = _sub(shell, "AutoLogon")
    _password(_sub(logon, "Password"), password, "Password")
    _text(logon, "Enabled", "true")
    _text(logon, "LogonCount", "99")
    _text(logon, "Username", "Administrator")
    _oobe(shell, answers)
    accounts = _sub(shell, "UserAccounts")
    _password(_sub(accounts, "AdministratorPassword"), password, "AdministratorPassword")
    script = rf"%d:\{SCRIPTS_FOLDER}\prepare.ps1"
    letters = " ".join(LETTERS)
    _commands(
        shell,
        "FirstLogonCommands",
        "SynchronousCommand",
        "CommandLine",
        (
            f"cmd /c for %d in ({letters}) do if exist {script} "
            f"powershell -NoProfile -ExecutionPolicy Bypass -File {script}",
        ),
    )


def _oobe(shell: etree._Element, answers: WindowsAnswers) -> None:
    """No questions to whoever looks at the screen first; no updates behind one's back."""
    oobe = _sub(shell, "OOBE")
    for page in (
        *("HideEULAPage", "HideLocalAccountScreen", "HideOEMRegistrationScreen"),
        *("HideOnlineAccountScreens", "HideWirelessSetupInOOBE"),
    ):
        _text(oobe, page, "true")
    _text(oobe, "NetworkLocation", "Work")
    _text(oobe, "ProtectYourPC", "3")
    _text(shell, "RegisteredOwner", answers.owner)
    _text(shell, "TimeZone", answers.time_zone)


def _international(component: etree._Element, answers: WindowsAnswers) -> None:
    _text(component, "InputLocale", answers.keyboard)
    _text(component, "SystemLocale", answers.locale)
    _text(component, "UILanguage", answers.language)
    _text(component, "UserLocale", answers.locale)


def _password(element: etree._Element, password: str, name: str) -> None:
    """A password as Windows writes it: not plain at a glance, and no secret to anyone."""
    encoded = base64.b64encode((password + name).encode("utf-16-le")).decode()
    _text(element, "Value", encoded)
    _text(element, "PlainText", "false")


def _commands(
    component: etree._Element,
    several: str,
    one: str,
    word: str,
    commands: tuple[str, ...],
    will_reboot: str | None = None,
) -> None:
    into = _sub(component, several)
    for order, command in enumerate(commands, 1):
        element = _item(into, one)
        _text(element, "Order", str(order))
        _text(element, word, command)
        if will_reboot is not None:
            _text(element, "WillReboot", will_reboot)


def _root() -> etree._Element:
    prefixes: dict[str | None, str] = {None: _NAMESPACE, "wcm": _WCM}
    return etree.Element(f"{{{_NAMESPACE}}}unattend", nsmap=prefixes)  # type: ignore[arg-type]


def _settings(root: etree._Element, name: str) -> etree._Element:
    return etree.SubElement(root, f"{{{_NAMESPACE}}}settings", {"pass": name})


def _component(settings: etree._Element, name: str) -> etree._Element:
    attributes = {
        "name": name,
        "processorArchitecture": "amd64",
        "publicKeyToken": _TOKEN,
        "language": "neutral",
        "versionScope": "nonSxS",
    }
    return etree.SubElement(settings, f"{{{_NAMESPACE}}}component", attributes)


def _sub(parent: etree._Element, tag: str) -> etree._Element:
    return etree.SubElement(parent, f"{{{_NAMESPACE}}}{tag}")


def _item(parent: etree._Element, tag: str) -> etree._Element:
    """An entry of a list; Setup asks for the action with each."""
    element = _sub(parent, tag)
    element.set(f"{{{_WCM}}}action", "add")
    return element


def _text(parent: etree._Element, tag: str, text: str) -> None:
    _sub(parent, tag).text = text


def _bytes(root: etree._Element) -> bytes:
    return etree.tostring(root, xml_declaration=True, encoding="utf-8", pretty_print=True)
