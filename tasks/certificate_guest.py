"""The trial VM of a certification, as one that can be asked from its network."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from blocks.errors import Conflict
from blocks.guest import Execution, accepts_key, banner, execute, login_command
from blocks.guest.key_files import make_key_pair
from blocks.marks import dhcp_namespace
from blocks.resources import Image
from blocks.state import Build
from tasks.certificate_build import Certification

_SSH_OPTIONS = ("BatchMode=yes", "ConnectTimeout=30", "ServerAliveInterval=15")
_ANSWER_TIMEOUT_S = 5.0
_POLL_S = 0.2
#: How long a guest may take for one script, besides what it waits for in it.
SCRIPT_S = 180.0


class Guest:
    """The trial VM as one that can be asked.

    Args:
        subject: The certification.
        build: The trial VM's build.
    """

    def __init__(self, subject: Certification, build: Build) -> None:
        self.build = build
        self._subject = subject
        self._store = subject.store
        self.image: Image = subject.image
        [self._port] = self._store.ports.of_device(build.id)
        self.directory = subject.world.directories.path(build.id)
        self.console = self.directory / "console.log"

    @property
    def _at(self) -> tuple[str, str]:
        return dhcp_namespace(self._port.network_id), self.image.login_user

    def banner(self, limit_s: float) -> str | None:
        """What its SSH server says first, waited for as long as it runs; None for nothing."""
        deadline = time.monotonic() + limit_s
        address = self._port.addresses[0].address
        while (words := banner(self._at[0], address, _ANSWER_TIMEOUT_S)) is None:
            runs = self._subject.world.hypervisor.state(self.build.id) == "running"
            if time.monotonic() > deadline or not runs:
                return None
            time.sleep(_POLL_S)
        return words

    def run(self, text: str, timeout_s: float = SCRIPT_S) -> Execution:
        """Run a script of the guest's shell, by the trial's key."""
        private = self._subject.directory / "trial"
        options = [word for option in _SSH_OPTIONS for word in ("-o", option)]
        words = login_command(
            *self._at,
            self._port.addresses[0].address,
            self.directory / "known_hosts",
            ["-T", "-i", str(private), *options],
        )
        # Whatever the login shell is: the script is for sh.
        return execute([*words, "--", f"exec sh -c {shlex.quote(text)}"], timeout_s)

    def lets_in_a_stranger(self) -> bool:
        """Whether it would let in the owner of a key that was made just now."""
        with TemporaryDirectory() as folder:
            public, _private = make_key_pair(Path(folder), "stranger")
            return accepts_key(
                *self._at,
                self._port.addresses[0].address,
                public,
                self.directory / "known_hosts",
                _ANSWER_TIMEOUT_S,
            )


def the_guest(subject: Certification) -> Guest:
    """The trial VM.

    Raises:
        Conflict: It is gone.
    """
    build = subject.trial.vm
    if build is None or build.state not in ("complete", "kept"):
        raise Conflict("the trial VM is gone", hint="certify the image again")
    return Guest(subject, build)
