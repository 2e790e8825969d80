"""Runs a program that reads what is not ours: under limits, without network, with few files.

Started as a program of its own (`python -I -S confined.py MEMORY CPU FILE READS WRITES PATH...
WORD...`), before the program that it becomes: limits, a network namespace without any interface,
Landlock (landlock(7)), under which every file is out of reach that is not named, root or not, and
a filter of system calls (seccomp(2)) that opens no socket: Landlock lets one connect to those of
this host's services. A kernel without one of the two leaves that part out. A program of ours that
has all of its modules confines itself (`confine`) before it reads what is not ours.

It is started so often that what it imports counts: a few modules of the standard library, as
light as there are (no json, no shutil, no typing: together they cost as much as all the rest).
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import sys

# The same on all architectures (asm-generic/unistd.h).
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_PATH_BENEATH = 1
_NO_NEW_PRIVILEGES = 38
_NEW_NETWORK = 0x40000000

#: prctl(2), <linux/seccomp.h>, and opcodes of <linux/bpf_common.h>: what they answer a call with.
_SET_SECCOMP, _FILTER = 22, 2
_LOAD, _IF_EQUAL, _IF_NOT_LESS, _ANSWER = 0x20, 0x15, 0x35, 0x06
_PASS, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EACCES
#: By machine: the kernel's number for it (<linux/audit.h>), and that of socket(2) there.
_SOCKETS = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
#: The first number of x32's calls, which are x86-64's once more; what else opens sockets.
_SECOND_NUMBERS, _IO_URING_SETUP = 0x40000000, 425

_EXECUTE, _WRITE, _READ, _READ_DIRECTORY = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_TRUNCATE, _DEVICE_IOCTL = 1 << 14, 1 << 15
#: All rights over files that each version of Landlock knows.
_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}
_NEWEST_RIGHTS = (1 << 16) - 1

#: What any program needs to start, and holds no secrets.
_PROGRAMS = ("/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc/ld.so.cache")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")


class _Attributes(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64),)


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("if_so", ctypes.c_uint8),
        ("if_not", ctypes.c_uint8),
        ("operand", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("first", ctypes.POINTER(_Instruction)))


def landlock_version(libc: ctypes.CDLL) -> int:
    """The kernel's version of Landlock; 0 where it has none, or it is off."""
    return max(0, int(libc.syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG)))


def keeps_to_files() -> bool:
    """Whether what runs here is kept from the files that it was not given."""
    return landlock_version(ctypes.CDLL(None, use_errno=True)) > 0


def _keep_to(libc: ctypes.CDLL, program: str | None, reads: list[str], writes: list[str]) -> None:
    version = landlock_version(libc)
    if version == 0:
        return
    known = _RIGHTS.get(version, _NEWEST_RIGHTS)
    attributes = _Attributes(known)
    rules = _checked(
        libc.syscall(
            _CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(ctypes.sizeof(attributes)), 0
        )
    )
    programs = _PROGRAMS if program is None else (*_PROGRAMS, program)
    allowed = dict.fromkeys(programs, _EXECUTE | _READ | _READ_DIRECTORY)
    allowed |= dict.fromkeys(_DEVICES, _READ | _WRITE)
    allowed |= dict.fromkeys(reads, _READ)
    allowed |= dict.fromkeys(writes, _READ | _WRITE | _TRUNCATE)
    for path, rights in allowed.items():
        _allow(libc, rules, path, rights & known)
    _checked(libc.syscall(_RESTRICT_SELF, rules, 0))
    os.close(rules)


def _allow(libc: ctypes.CDLL, rules: int, path: str, rights: int) -> None:
    try:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # nothing is allowed over what is not there
    if not os.path.isdir(path):  # noqa: PTH112 - no pathlib: this starts before each program
        rights &= _EXECUTE | _READ | _WRITE | _TRUNCATE | _DEVICE_IOCTL
    rule = _Beneath(rights, parent)
    _checked(libc.syscall(_ADD_RULE, rules, _PATH_BENEATH, ctypes.byref(rule), 0))
    os.close(parent)


def _open_no_socket(libc: ctypes.CDLL) -> None:
    known = _SOCKETS.get(os.uname().machine)
    if known is None:
        return
    machine, socket = known
    lines = (
        (_LOAD, 0, 0, 4),
        # The calls of another machine that this one knows too have other numbers.
        (_IF_EQUAL, 0, 4, machine),
        (_LOAD, 0, 0, 0),
        (_IF_NOT_LESS, 2, 0, _SECOND_NUMBERS),
        (_IF_EQUAL, 1, 0, socket),
        (_IF_EQUAL, 0, 1, _IO_URING_SETUP),
        (_ANSWER, 0, 0, _REFUSE),
        (_ANSWER, 0, 0, _PASS),
    )
    first = (_Instruction * len(lines))(*(_Instruction(*line) for line in lines))
    set_to = libc.prctl(_SET_SECCOMP, _FILTER, ctypes.byref(_Program(len(lines), first)), 0, 0)
    if ctypes.get_errno() != errno.EINVAL:
        _checked(set_to)


def _checked(result: int) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def _find(program: str) -> str:
    """Where a program is, as execvp(3) looks for it."""
    folders = [""] if "/" in program else os.environ.get("PATH", os.defpath).split(":")
    for folder in folders:
        path = f"{folder}/{program}" if folder else program
        if os.access(path, os.X_OK) and not os.path.isdir(path):  # noqa: PTH112 - see above
            return path
    sys.exit(f"the program {program} is not installed")


def confine(program: str | None, reads: list[str], writes: list[str]) -> None:
    """Confine this process, which has one thread, and all that it starts.

    Args:
        program: What it will become, if anything.
        reads: The files that it may read.
        writes: The files that it may read and write; they exist.

    Raises:
        OSError: The kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0:
        _checked(libc.unshare(_NEW_NETWORK))
    _checked(libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    _keep_to(libc, program, reads, writes)
    _open_no_socket(libc)


def main(words: list[str]) -> None:
    """Confine this process, and become the program.

    Args:
        words: The limits of memory (bytes), processor time (seconds) and files (bytes), `-` where
            there is none; how many files it may read, and how many write; those files, those
            to write have to exist; the program with its arguments.
    """
    memory, cpu, length, count, writable = words[:5]
    paths, rest = words[5:], int(count) + int(writable)
    reads, writes, command = paths[: int(count)], paths[int(count) : rest], paths[rest:]
    program = _find(command[0])
    confine(program, reads, writes)
    limits = {
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_CPU: cpu,
        resource.RLIMIT_FSIZE: length,
        resource.RLIMIT_CORE: "0",
    }
    for which, limit in limits.items():
        if limit != "-":
            resource.setrlimit(which, (int(limit), int(limit)))
    os.execv(program, command)  # noqa: S606 - that is what it is for


if __name__ == "__main__":
    main(sys.argv[1:])
