"""Network namespaces without fork: a thread enters one, does its work, and ends.

pyroute2's own `NetNS` and `netns.create` fork, and a fork of a process that runs event
loops and threads can deadlock. setns(2) and unshare(2) act on the calling thread alone,
so a thread of our own may wander and nobody else notices. The names are iproute2's
(/run/netns, ip-netns(8)): `ip netns exec` works on what is made here.

The mark of a namespace is the alias of its own loopback device, set *before* the
namespace gets its name: a namespace that can be found is a namespace that can be told.
"""

from __future__ import annotations

import contextvars
import ctypes
import errno
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pyroute2 import IPRoute

from blocks import ages, changes
from blocks.errors import Conflict, HostFault

_RUN = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_MS_BIND, _MS_REC, _MS_SHARED = 4096, 16384, 1 << 20
_MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)

T = TypeVar("T")


def run_in(namespace: str | None, function: Callable[[], T]) -> T:
    """Run a function in a thread of its own, inside a network namespace.

    Sockets and processes that the function makes belong to the namespace and keep
    belonging to it afterwards.

    Args:
        namespace: Its name; None means the namespace that we are in. (A thread of its
            own is of use there too: `IPRoute()` refuses a thread whose event loop runs.)
        function: What to do there.

    Returns:
        What the function returns; what it raises is raised here.

    Raises:
        HostFault: There is no such namespace.
    """

    def inside() -> T:
        if namespace is not None:
            _enter(namespace)
        return function()

    return _in_thread(inside)


def exists(namespace: str) -> bool:
    """Whether there is a namespace of that name (and not only a file left half-way)."""
    try:
        return (_RUN / namespace).stat().st_dev == Path("/proc/self/ns/net").stat().st_dev
    except FileNotFoundError:
        return False


def has(namespace: str, pid: int) -> bool:
    """Whether a process is in the namespace of this name."""
    try:
        named, own = (_RUN / namespace).stat(), Path(f"/proc/{pid}/ns/net").stat()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return os.path.samestat(named, own)


def names(prefix: str) -> list[str]:
    """The names under which namespaces are, or were about to be, registered."""
    if not _RUN.is_dir():
        return []
    return sorted(path.name for path in _RUN.iterdir() if path.name.startswith(prefix))


def ensure(namespace: str, alias: str) -> None:
    """Make a namespace with its loopback device up and marked.

    Args:
        namespace: Its name.
        alias: Our mark, for its loopback device.

    Raises:
        Conflict: A namespace of that name exists and carries another mark.
        HostFault: The kernel refused it.
    """
    if exists(namespace):
        _same_mark(namespace, alias)
        return
    with _registry():
        if exists(namespace):
            _same_mark(namespace, alias)
            return
        path = _RUN / namespace
        path.unlink(missing_ok=True)
        path.touch(mode=0o444)

        def make() -> None:
            _check(_libc.unshare(_CLONE_NEWNET), "unshare")
            with IPRoute() as ipr:
                ipr.link("set", index=1, state="up", ifalias=alias)
            without_ipv6("all")
            without_ipv6("default")
            own = b"/proc/thread-self/ns/net"
            _check(_libc.mount(own, os.fsencode(path), b"none", _MS_BIND, None), "mount")

        try:
            _in_thread(make)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    changes.record(f"Created the namespace {namespace}", ["ip", "netns", "add", namespace])


def remove(namespace: str) -> None:
    """Remove a namespace's name; it ends with its last process and socket."""
    if not _RUN.is_dir():
        return
    path = _RUN / namespace
    with _registry():
        if not path.exists():
            return
        if exists(namespace):
            _check(_libc.umount2(os.fsencode(path), _MNT_DETACH), f"umount of {path}")
        path.unlink(missing_ok=True)
    changes.record(f"Removed the namespace {namespace}", ["ip", "netns", "delete", namespace])


def mark_of(namespace: str) -> str | None:
    """The alias of a namespace's loopback device; None without one."""

    def read() -> str | None:
        with IPRoute() as ipr:
            alias: str | None = ipr.link("get", index=1)[0].get("ifalias")
            return alias

    return run_in(namespace, read) if exists(namespace) else None


def age_s(namespace: str) -> float | None:
    """Seconds since a namespace got its name; None where there is no such name."""
    return ages.of_file(_RUN / namespace)


def without_ipv6(link: str) -> None:
    """Keep the kernel from giving a link an IPv6 address (fe80::) of its own.

    Args:
        link: The link's name; `all` and `default` as sysctl(8) knows them.
    """
    if Path("/proc/sys/net/ipv6").is_dir():
        sysctl(f"net/ipv6/conf/{link}/disable_ipv6", "1")


def sysctl(key: str, value: str) -> bool:
    """Set a kernel parameter of the namespace that the calling thread is in.

    Args:
        key: Its path under /proc/sys, e.g. `net/ipv4/ip_forward`.
        value: Its value.

    Returns:
        Whether it had another value before.
    """
    if is_set(key, value):
        return False
    (Path("/proc/sys") / key).write_text(value)
    return True


def is_set(key: str, value: str) -> bool:
    """Whether a kernel parameter of the calling thread's namespace has this value."""
    return (Path("/proc/sys") / key).read_text().strip() == value


def _same_mark(namespace: str, alias: str) -> None:
    found = mark_of(namespace)
    if found != alias:
        raise Conflict(
            f"the namespace {namespace} is not ours: its mark is {found!r}, not {alias!r}",
            hint=f"find out whose it is; `ip netns delete {namespace}` removes it",
        )


@contextmanager
def _registry() -> Iterator[None]:
    """Make /run/netns what iproute2 makes it, and hold its lock (flock, as iproute2 does)."""
    _RUN.mkdir(parents=True, exist_ok=True)
    handle = os.open(_RUN, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        _share()
        yield
    finally:
        os.close(handle)


def _share() -> None:
    """Make /run/netns a shared mount of its own, as iproute2 does: the kernel says if it is not.

    /proc/self/mountinfo would not say: it also tells of a mount that another one covers.
    """
    run = os.fsencode(_RUN)
    shared = (b"", run, b"none", _MS_SHARED | _MS_REC, None)
    if _libc.mount(*shared) == 0:
        return
    # EINVAL: no mount point.
    _check(ctypes.get_errno() != errno.EINVAL, "shared mount")
    _check(_libc.mount(run, run, b"none", _MS_BIND | _MS_REC, None), "bind mount")
    _check(_libc.mount(*shared), "shared mount")


def _enter(namespace: str) -> None:
    try:
        handle = os.open(_RUN / namespace, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise HostFault(
            f"there is no namespace {namespace}", hint="run the step that makes it again"
        ) from error
    try:
        _check(_libc.setns(handle, _CLONE_NEWNET), f"setns to {namespace}")
    finally:
        os.close(handle)


def _check(result: int, what: str) -> None:
    if result:
        raise HostFault(f"{what} failed: {os.strerror(ctypes.get_errno())}")


def _in_thread(function: Callable[[], T]) -> T:
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(function())
        except BaseException as error:  # noqa: BLE001 - it is raised again, in the caller
            errors.append(error)

    # The caller's context goes along, so that what is recorded there arrives here.
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(work,), name="fifty-namespace", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
