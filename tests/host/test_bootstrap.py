"""A machine that lacks something is told what, and how to get it, before anything is changed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.host

_PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(session_directory: Path) -> Path:
    """A copy of what bootstrap reads, without an environment."""
    copy = session_directory / "checkout"
    if not copy.exists():
        copy.mkdir(mode=0o755)
        shutil.copytree(_PROJECT / "deployments", copy / "deployments")
        shutil.copy(_PROJECT / "pyproject.toml", copy)
    return copy


def run(
    checkout: Path,
    *,
    before: str = ":",
    wrapper: tuple[str, ...] = (),
    env: dict[str, str] | None = None,
    script: str = "bootstrap",
) -> subprocess.CompletedProcess[str]:
    """Run a script of the checkout, in a mount namespace that `before` has changed."""
    private = ("unshare", "--mount", "--propagation", "private", "sh", "-ec")
    return subprocess.run(
        [*private, f'{before}; exec "$@"', "sh", *wrapper, str(checkout / "deployments" / script)],
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def refused(done: subprocess.CompletedProcess[str], checkout: Path) -> str:
    """What it said, once it is sure that it refused without changing anything."""
    assert done.returncode == 1, done.stderr
    assert "Nothing was changed" in done.stderr
    assert "Asking apt" not in done.stderr
    assert not (checkout / ".venv").exists()
    return done.stderr


@pytest.mark.parametrize("script", ["bootstrap", "quickstart"])
def test_not_root(checkout: Path, script: str) -> None:
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    said = refused(run(checkout, wrapper=nobody, script=script), checkout)
    assert "you are not root (uid 65534)" in said
    assert "sudo" in said
    assert said.count("  * ") == 1


def test_no_tun(checkout: Path) -> None:
    said = refused(run(checkout, before="mount -t tmpfs none /dev/net"), checkout)
    assert "/dev/net/tun is missing" in said
    assert "modprobe tun" in said
    assert "--device /dev/net/tun" in said
    assert said.count("  * ") == 1


def test_a_device_that_may_not_be_opened(checkout: Path, session_directory: Path) -> None:
    dead = session_directory / "dead-device"
    # No driver has this number: opening it fails, as with a container's device list.
    subprocess.run(["mknod", str(dead), "c", "0", "0"], check=True)
    said = refused(run(checkout, before=f"mount --bind {dead} /dev/fuse"), checkout)
    assert "/dev/fuse cannot be opened" in said


@pytest.mark.parametrize(
    ("os_release", "expected"),
    [
        ('ID=fedora\nPRETTY_NAME="Fedora Linux 43"', "this is Fedora Linux 43, not Debian"),
        ('ID=debian\nVERSION_ID="11"\nPRETTY_NAME="Debian 11"', "Debian 11 is too old"),
        ('ID=ubuntu\nID_LIKE=debian\nVERSION_ID="22.04"\nPRETTY_NAME=U', "U is too old"),
        ("", "an unknown system"),
    ],
)
def test_another_distribution(
    checkout: Path, session_directory: Path, os_release: str, expected: str
) -> None:
    file = session_directory / "os-release"
    file.write_text(os_release + "\n")
    before = f"mount --bind {file} $(readlink -f /etc/os-release)"
    said = refused(run(checkout, before=before), checkout)
    assert expected in said
    assert "Debian 12, Ubuntu 24.04" in said


@pytest.mark.parametrize(
    "os_release",
    [
        'ID=debian\nVERSION_ID="13"',
        "ID=debian",  # testing has no version
        'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"',
        'ID=linuxmint\nID_LIKE="ubuntu debian"\nVERSION_ID="22"',
    ],
)
def test_newer_ones_and_derivatives_will_do(
    checkout: Path, session_directory: Path, os_release: str
) -> None:
    file = session_directory / "os-release"
    file.write_text(os_release + "\n")
    before = f"mount --bind {file} $(readlink -f /etc/os-release)"
    done = run(checkout, before=before, wrapper=("bash", "-c", '"$0" --check'))
    assert done.returncode == 0, done.stderr


def test_no_apt(checkout: Path, session_directory: Path) -> None:
    programs = session_directory / "few-programs"
    programs.mkdir()
    for directory in ("/bin", "/sbin", "/usr/bin", "/usr/sbin"):
        for program in Path(directory).iterdir():
            link = programs / program.name
            if not program.name.startswith(("apt", "dpkg")) and not link.is_symlink():
                link.symlink_to(program)
    said = refused(run(checkout, env={"PATH": str(programs)}), checkout)
    assert "apt-get or dpkg-query is not in PATH" in said


def test_a_home_that_is_somebody_elses(checkout: Path, session_directory: Path) -> None:
    home = session_directory / "others"
    home.mkdir()
    (home / "thesis.txt").write_text("years of work")
    said = refused(run(checkout, env={"FIFTY_HOME": str(home)}), checkout)
    assert f"FIFTY_HOME is {home}" in said


def test_everything_that_is_missing_is_told_at_once(checkout: Path) -> None:
    before = "mount -t tmpfs none /dev/net; mount -t tmpfs -o size=1m none /var/lib"
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    env = {"FIFTY_HOME": "/var/lib/fifty"}
    said = refused(run(checkout, before=before, wrapper=nobody, env=env), checkout)
    assert said.count("  * ") == 3
    for word in ("you are not root", "/dev/net/tun is missing", "/var/lib has 1 MiB free"):
        assert word in said


def test_no_package_sources(checkout: Path, session_directory: Path) -> None:
    """Packages are missing, and apt does not know where to get them from."""
    empty = session_directory / "no-sources"
    empty.mkdir(exist_ok=True)
    (checkout / "deployments" / "packages-debian.txt").write_text("hello-traditional # not here\n")
    said = refused(run(checkout, before=f"mount --bind {empty} /etc/apt"), checkout)
    assert "apt has no sources" in said
    assert "hello-traditional" in said


def test_wrong_options(checkout: Path) -> None:
    for script in ("bootstrap", "quickstart"):
        done = run(checkout, script=script, wrapper=("bash", "-c", '"$0" --nonsense'))
        assert done.returncode == 2
        assert "--" in done.stdout
        helped = run(checkout, script=script, wrapper=("bash", "-c", '"$0" --help'))
        assert helped.returncode == 0
        assert helped.stdout == done.stdout
