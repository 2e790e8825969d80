"""An image's certificate: what a boot of it told, test by test, with the evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from blocks.resources import Image
from blocks.resources.base import Sha256

_SHORT = 160


#: The seed's eleven tests in its order, each with what it asks.
TESTS: Mapping[str, str] = {
    "key-login": "one can log in with the key",
    "injected-file": "a file that was injected is there",
    "cloud-init": "cloud-init ran",
    "root-size": "the root file system has the flavor's size",
    "host-name": "the host name is the VM's",
    "time-zone": "the time zone is right",
    "fstab": "/etc/fstab is clean, and everything mounts",
    "console": "the boot log is on the console",
    "tmp": "the directory /tmp is clean",
    "snapshot": "a snapshot can be taken and reverted to",
    "volume": "a volume can be attached, formatted, written, detached and read again",
}


class Verdict(StrEnum):
    """What can be said of a test.

    `not applicable`: the image is not made for it, and works without. `not run`: something
    that failed before it kept it.
    """

    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    NOT_APPLICABLE = "not applicable"
    NOT_RUN = "not run"


class Outcome(BaseModel):
    """How one test went.

    Attributes:
        test: Its short name, and `title` in words.
        verdict: What is said of it.
        evidence: What that rests on: what was asked, and what was answered.
        hint: What to do about it; empty where nothing has to be done.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    test: str
    title: str
    verdict: Verdict
    evidence: tuple[str, ...] = ()
    hint: str = ""


class Certificate(BaseModel):
    """What a certification found.

    Attributes:
        image: What the image was called.
        sha256: Of the image's file, as it was booted.
        certified_at: When.
        passed: Whether each test passed, or does not apply.
        flavor: The flavor of the trial VM.
        versions: What it was tested with (Fifty Steps, QEMU, libvirt, the accelerator), and
            what the guest says of itself (its system, kernel and cloud-init).
        tests: All tests, in their order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str
    sha256: Sha256
    certified_at: datetime
    passed: bool
    flavor: str
    versions: Mapping[str, str]
    tests: tuple[Outcome, ...]

    @property
    def summary(self) -> str:
        """The result in a line."""
        counts = [(sum(one.verdict is v for one in self.tests), v) for v in Verdict]
        return ", ".join(f"{count} {verdict}" for count, verdict in counts if count)


def certify(
    image: Image, at: datetime, flavor: str, versions: Mapping[str, str], tests: Sequence[Outcome]
) -> Certificate:
    """The certificate of an image whose tests are over.

    Args:
        image: The image.
        at: When it was tested.
        flavor: The trial VM's.
        versions: What it was tested with.
        tests: How each test went; one that is missing is none that passed.
    """
    good = (Verdict.PASS, Verdict.NOT_APPLICABLE)
    went = {one.test: one for one in tests}
    in_order = tuple(went[test] for test in TESTS if test in went)
    return Certificate(
        image=image.reference,
        sha256=image.sha256,
        certified_at=at,
        passed=len(in_order) == len(TESTS) and all(one.verdict in good for one in in_order),
        flavor=flavor,
        versions=versions,
        tests=in_order,
    )


def why_not_certified(image: Image) -> str | None:
    """Why an image cannot be taken for a certified one, in words; None where it can."""
    if image.certificate is None:
        return "it has no certificate"
    held = Certificate.model_validate(image.certificate)
    if held.sha256 != image.sha256:
        return "its certificate is for another file"
    if not held.passed:
        failed = [one.title for one in held.tests if one.verdict is Verdict.FAIL]
        why = f"it is not so that {'; '.join(failed)}" if failed else "not all of it was run"
        return f"its certification failed: {why}"
    return None


class Notes:
    """What a test gathers: evidence, and what is wrong.

    Args:
        test: One of `TESTS`.
    """

    def __init__(self, test: str) -> None:
        self._test, self._title = test, TESTS[test]
        self._evidence: list[str] = []
        self._verdict = Verdict.PASS
        self._hint = ""

    def saw(self, evidence: str) -> None:
        """Note what speaks for it."""
        self._evidence.append(line_of(evidence))

    def fail(self, evidence: str, hint: str = "") -> None:
        """Note what is wrong; the first hint is the one that is given."""
        self._verdict = Verdict.FAIL
        self._hint = self._hint or hint
        self._evidence.append(line_of(evidence))

    def outcome(self) -> Outcome:
        """How it went.

        Nothing that was seen is no success.
        """
        if not self._evidence:
            self.fail("the guest told nothing of it", "log in to a VM of it, and ask there")
        return self._as(self._verdict)

    def not_applicable(self, why: str) -> Outcome:
        """That the image is not made for it."""
        self.saw(why)
        return self._as(Verdict.NOT_APPLICABLE)

    def not_run(self, why: str) -> Outcome:
        """That something kept it."""
        self.saw(why)
        return self._as(Verdict.NOT_RUN)

    def _as(self, verdict: Verdict) -> Outcome:
        return Outcome(
            test=self._test,
            title=self._title,
            verdict=verdict,
            evidence=tuple(self._evidence),
            hint=self._hint,
        )


def line_of(text: str) -> str:
    """One printable line: evidence quotes a guest that one does not trust."""
    plain = " ".join(text.split())
    plain = "".join(char if char.isprintable() else "?" for char in plain)
    return plain if len(plain) <= _SHORT else f"{plain[: _SHORT - 1]}…"
