"""The errors of Fifty Steps: what a caller can act on, in the manner of Ganeti's codes.

Every error is one line of what and why, plus a hint what to do about it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Any, ClassVar


class FiftyError(Exception):
    """Base class of everything that Fifty Steps raises on purpose.

    Args:
        message: One line: what went wrong, and why.
        hint: What the reader can do about it; the class's own hint if not given.
        details: Further lines, one per finding (all errors of a request, the table of
            hosts and reasons, the last lines of a console).
    """

    default_hint: ClassVar[str] = ""
    #: Worth another try of the same step on the same host.
    transient: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "", details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.default_hint
        self.details = tuple(details)

    def __str__(self) -> str:
        """The message and, where there are some, the details on lines of their own."""
        return "\n  ".join((self.message, *self.details))

    def as_dict(self) -> dict[str, Any]:
        """The error as the command line's `--json` prints it."""
        return {
            "error": type(self).__name__,
            "message": self.message,
            "hint": self.hint,
            "details": list(self.details),
        }


class InvalidRequest(FiftyError):
    """The request itself is wrong; the same request will never work."""

    default_hint = "correct the request and send it again"


class NotFound(FiftyError):
    """Something that the request names does not exist, or is not visible to the caller."""

    default_hint = "look at the names with the matching `list` command"


class Conflict(FiftyError):
    """The request is fine, but something that exists is in its way."""

    default_hint = "look at what is in the way, and change or remove it first"


class QuotaExceeded(FiftyError):
    """The tenant's quota does not allow it."""

    default_hint = "delete something, or ask an admin for a larger quota"


class RateLimited(FiftyError):
    """Too many requests of this tenant in a short time."""

    default_hint = "try again later"


class Denied(FiftyError):
    """The caller is not who they say they are, or may not do this."""

    default_hint = "check the credentials block and its tenant's role"


class NoValidHost(FiftyError):
    """No host can take the instance; the details say which filter refused which host."""

    default_hint = "free resources, choose a smaller flavor, or add a host"


class HostFault(FiftyError):
    """Something on this host failed; another host may do."""

    default_hint = "look at the host's logs; another host may be able to do it"


class Transient(FiftyError):
    """It failed, and is worth another try here (busy, not yet there, connection lost)."""

    transient = True
    default_hint = "try again"


#: For a file system without room.
NO_ROOM_HINT = "make room: `df -h` tells which file system is full; then try again"

#: What the kernel says of this host, not of what it was asked for; and what to do about it.
_OF_THE_HOST = {
    errno.ENOSPC: NO_ROOM_HINT,
    errno.EDQUOT: "raise the disk quota of the user that it belongs to, or make room",
    errno.EROFS: "mount the file system writable; `dmesg` tells why it is not",
    errno.EIO: "look at `dmesg`: a disk of this host may be failing",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`, LimitNOFILE=)",
    errno.ENFILE: "raise the host's limit of open files (sysctl fs.file-max)",
    errno.ENOMEM: "free memory on this host",
}


def fault_of_host(error: OSError | Transient, what: str = "", tries: int = 1) -> HostFault | None:
    """The fault of this host that an error tells of; None where it tells of another.

    Args:
        error: What the kernel said, or what was tried in vain.
        what: What could not be done, as in "could not WHAT"; by default the error's file.
        tries: How often it was tried.
    """
    if isinstance(error, Transient):
        message = f"{error.message} (tried {tries} times)"
        return HostFault(message, hint=error.hint, details=error.details)
    hint = _OF_THE_HOST.get(error.errno or 0)
    if hint is None:
        return None
    what = what or (f"use {error.filename}" if error.filename else "use a file")
    return HostFault(f"could not {what}: {os.strerror(error.errno or 0)}", hint=hint)


class Unsupported(FiftyError):
    """This kernel, QEMU or build lacks something; the message names it."""

    default_hint = "use what this host can do, or a host that has it"


class UnsafeImage(FiftyError):
    """An image that is not what it says it is, or that reaches outside of itself."""

    default_hint = "do not use this image"


class GuestFault(FiftyError):
    """The guest itself failed to come up; the details are its console's last lines."""

    default_hint = (
        "check the image and what was put into it; a guest made with `--on-failure keep` "
        "stays for a look at its console (`fifty vm console NAME`)"
    )


class LeaseLost(FiftyError):
    """Another run has taken over this build: whoever is told so does nothing more with it."""

    default_hint = "the run that took over brings the build to its end; look at that one"


class NeedsAttention(FiftyError):
    """Undoing left something behind; the details say what and where."""

    default_hint = "`fifty vm rollback NAME` tries again once the cause is gone"
