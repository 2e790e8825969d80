"""This host's files under the kernel of a stock distribution.

The kernel that the tests run on may lack what distributions have (modules,
nf_conntrack_bridge, GRE, VLANs). QEMU's emulation boots Debian's cloud kernel here: its
root is this host's file system, by virtiofs, with an overlay in memory. So the same
Python, the same tools and the same tests run, and nothing that they change stays.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from blocks.images.packages import PackageSource

KERNELS = ("linux-image-cloud-amd64",)
_VIRTIOFSD = ("/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd")
#: In the order in which they are to be loaded.
_MODULES = (
    *("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci"),
    *("fuse", "virtiofs", "overlay"),
)
_MEMORY = "3G"
_PATIENCE_S = 20.0
_CODE = re.compile(r"^STOCK-KERNEL-CODE (\d+)", re.MULTILINE)
_POWER_OFF = "echo o > /proc/sysrq-trigger; sleep 60"
_INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for module in {modules}; do insmod /modules/$module.ko; done
mount -t virtiofs -o ro root /host || {{ {power_off}; }}
mount -t tmpfs -o size=60% changes /changes; mkdir /changes/upper /changes/work
mount -t overlay -o lowerdir=/host,upperdir=/changes/upper,workdir=/changes/work over /new
for name in proc sys dev; do mount --move /$name /new/$name; done
ln -s /proc/self/fd /new/dev/fd
ln -s fd/0 /new/dev/stdin; ln -s fd/1 /new/dev/stdout; ln -s fd/2 /new/dev/stderr
mkdir -p /new/dev/pts /new/dev/shm
mount -t devpts pts /new/dev/pts
for name in dev/shm run var/tmp; do mount -t tmpfs memory /new/$name; done
mkdir -p /new/run/lock /new/lib/modules
mount --bind /host{tree}/lib/modules /new/lib/modules
cp /go /new/run/go
exec chroot /new /bin/bash /run/go
"""
_GO = """export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
# As a distribution does when it starts (modules.devname); who opens one loads its module.
mkdir -p /dev/net && mknod /dev/net/tun c 10 200 && mknod /dev/loop-control c 10 237
ip link set lo up; date -s @{now} > /dev/null
cd {cwd} && {command}
echo "STOCK-KERNEL-CODE $?"
{power_off}
"""
# The kernel asks for modules from where it began, not from where we are.
_MODPROBE = '#!/bin/busybox sh\nexec /bin/busybox chroot /new /sbin/modprobe "$@"\n'


def missing() -> list[str]:
    """The programs that are not here."""
    wanted = ("qemu-system-x86_64", "busybox", "cpio", "depmod")
    absent = [name for name in wanted if shutil.which(name) is None]
    return absent if _virtiofsd() else [*absent, "virtiofsd"]


def kernel_tree(directory: Path) -> Path:
    """Debian's cloud kernel with its modules, fetched and unpacked."""
    source = PackageSource(directory)
    [tree] = [source.unpacked(package) for package in source.kernel(KERNELS)]
    [modules] = (tree / "lib/modules").iterdir()
    subprocess.run(["depmod", "-b", tree, modules.name], check=True)
    return tree


def run(tree: Path, scratch: Path, command: Sequence[str], cwd: Path, patience_s: float) -> str:
    """Run a command as root under the kernel of `tree`.

    Args:
        tree: As `kernel_tree` gives it.
        scratch: A directory for what is needed meanwhile.
        command: The command; its output goes to the console.
        cwd: Where it runs.
        patience_s: Seconds until the machine is stopped.

    Returns:
        The console.

    Raises:
        AssertionError: The command failed, or did not end.
    """
    go = _GO.format(
        cwd=cwd, command=shlex.join(command), now=int(time.time()), power_off=_POWER_OFF
    )
    initrd = _initrd(tree, scratch, go)
    [image] = (tree / "boot").glob("vmlinuz-*")
    memory = f"memory-backend-memfd,id=memory,size={_MEMORY},share=on"
    root = scratch / "root.sock"
    words = [
        *("qemu-system-x86_64", "-machine", "q35,accel=tcg,memory-backend=memory"),
        *("-cpu", "max", "-smp", "2", "-m", _MEMORY, "-object", memory),
        *("-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"),
        *("-chardev", f"socket,id=root,path={root}"),
        *("-device", "vhost-user-fs-pci,chardev=root,tag=root,queue-size=1024"),
        *("-kernel", f"{image}", "-initrd", f"{initrd}"),
        *("-append", "console=ttyS0 quiet panic=-1"),
    ]
    with _shared_root(root):
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=patience_s,
            check=False,
        )
    console = done.stdout.decode(errors="replace").replace("\r", "")
    code = _CODE.search(console)
    assert code is not None and code[1] == "0", console
    return console


def _initrd(tree: Path, scratch: Path, go: str) -> Path:
    root = scratch / "initrd"
    for name in ("bin", "sbin", "proc", "sys", "dev", "modules", "host", "changes", "new"):
        (root / name).mkdir(parents=True)
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, root / "bin/busybox")
    for name in _MODULES:
        [module] = (tree / "lib/modules").rglob(f"{name}.ko")
        shutil.copy(module, root / "modules")
    init = _INIT.format(tree=tree, modules=" ".join(_MODULES), power_off=_POWER_OFF)
    for name, text in (("init", init), ("go", go), ("sbin/modprobe", _MODPROBE)):
        (root / name).write_text(text)
        (root / name).chmod(0o755)
    archive = scratch / "initrd.cpio"
    names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
    words = ["cpio", "--quiet", "-o", "-H", "newc", "-F", f"{archive}"]
    subprocess.run(words, cwd=root, input=names, text=True, check=True)
    return archive


def _virtiofsd() -> str | None:
    return next((path for path in _VIRTIOFSD if Path(path).exists()), None)


@contextmanager
def _shared_root(path: Path) -> Iterator[None]:
    """Share this host's file system; the program ends with the machine that uses it."""
    program = _virtiofsd()
    assert program is not None
    words = [program, f"--socket-path={path}", "-o", "source=/,cache=always,sandbox=chroot"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + _PATIENCE_S
        while not path.exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait()
