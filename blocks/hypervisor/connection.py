"""The connection to libvirt: opened when it is first needed, opened again when it was lost."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TypeVar

import libvirt

from blocks.errors import Conflict, FiftyError, HostFault, InvalidRequest, Transient, Unsupported

T = TypeVar("T")

# libvirt prints every error to standard error by default, also those that we expect
# ("Domain not found"); each comes as an exception as well.
libvirt.registerErrorHandler(lambda _context, _error: None, None)

START_HINT = (
    "start libvirt: `systemctl start libvirtd`, or `virtlogd -d; libvirtd -d` without systemd"
)

_BUSY_HINT = "another operation on the domain is not done; try again"

#: libvirt's codes, what they are to us, and what to do about it.
_KINDS: tuple[tuple[tuple[int, ...], type[FiftyError], str], ...] = (
    (
        (
            libvirt.VIR_ERR_OPERATION_TIMEOUT,
            libvirt.VIR_ERR_RESOURCE_BUSY,
            libvirt.VIR_ERR_OPERATION_ABORTED,
        ),
        Transient,
        _BUSY_HINT,
    ),
    (
        (
            libvirt.VIR_ERR_AUTH_FAILED,
            libvirt.VIR_ERR_AUTH_CANCELLED,
            libvirt.VIR_ERR_AUTH_UNAVAILABLE,
            libvirt.VIR_ERR_ACCESS_DENIED,
            libvirt.VIR_ERR_OPERATION_DENIED,
        ),
        HostFault,
        "run as root, or as a member of the group `libvirt`",
    ),
    (
        (
            libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
            libvirt.VIR_ERR_NO_SUPPORT,
            libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,
            libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
        ),
        Unsupported,
        "",
    ),
    (
        (
            libvirt.VIR_ERR_XML_ERROR,
            libvirt.VIR_ERR_XML_DETAIL,
            libvirt.VIR_ERR_XML_INVALID_SCHEMA,
        ),
        InvalidRequest,
        "libvirt does not take this definition",
    ),
    ((libvirt.VIR_ERR_DOM_EXIST,), Conflict, ""),
)


def lost(error: libvirt.libvirtError) -> bool:
    """Whether an error says that the connection is gone (or cannot be made).

    libvirt has no code of its own for it: it is a system, RPC or internal error *of the
    RPC layer* ("client socket is closed", "Failed to connect socket").
    """
    return error.get_error_code() == libvirt.VIR_ERR_NO_CONNECT or (
        error.get_error_domain() in (libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE)
        and error.get_error_code()
        in (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_ERR_RPC, libvirt.VIR_ERR_INTERNAL_ERROR)
    )


def translated(error: libvirt.libvirtError, what: str) -> FiftyError:
    """One of our errors for one of libvirt's.

    Args:
        error: What libvirt raised.
        what: What was being done, as in "could not WHAT".
    """
    code = error.get_error_code()
    text = " ".join(str(error.get_error_message() or error).split())
    message = f"could not {what}: {text}"
    if lost(error):
        return Transient(message, hint=START_HINT)
    if "Device or resource busy" in text:
        return Transient(message, hint=_BUSY_HINT)
    if "already exists with uuid" in text:
        return Conflict(message)
    for codes, kind, hint in _KINDS:
        if code in codes:
            return kind(message, hint=hint)
    return HostFault(message, hint="look at libvirt's log: /var/log/libvirt/qemu/DOMAIN.log")


class Connection:
    """One connection to libvirt for all threads of this process.

    Args:
        uri: libvirt's connection URI.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._lock = threading.Lock()
        self._open: libvirt.virConnect | None = None
        self._pid = 0

    def call(self, what: str, operation: Callable[[libvirt.virConnect], T]) -> T:
        """Run an operation; once more on a new connection where the old one was lost.

        Args:
            what: What is done, for the error's message ("define the domain x").
            operation: Gets the `virConnect`. It can run twice, so it must be one that
                finds "already done" by itself.

        Raises:
            FiftyError: `Transient`, `HostFault`, ... as `translated` says.
        """
        connection, is_new = self._connection(None)
        try:
            return operation(connection)
        except libvirt.libvirtError as error:
            if is_new or not lost(error):
                raise translated(error, what) from error
        connection, _ = self._connection(connection)
        try:
            return operation(connection)
        except libvirt.libvirtError as error:
            raise translated(error, what) from error

    def close(self) -> None:
        """Close the connection; the next call opens a new one."""
        with self._lock:
            opened, self._open = self._open, None
        if opened is not None:
            opened.close()

    def _connection(self, broken: libvirt.virConnect | None) -> tuple[libvirt.virConnect, bool]:
        """The open connection and whether it is new; `broken` is not used any more."""
        with self._lock:
            # A connection does not survive a fork: two processes would share its socket.
            if self._open is None or self._open is broken or self._pid != os.getpid():
                try:
                    self._open = libvirt.open(self.uri)
                except libvirt.libvirtError as error:
                    self._open = None
                    raise translated(error, f"connect to {self.uri}") from error
                self._pid = os.getpid()
                return self._open, True
            return self._open, False
