"""What a static check found: one finding for each point, with the evidence."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from blocks.images.cloud_init import CloudInit
from blocks.images.file_systems import EXT, Kind


class Verdict(StrEnum):
    """What can be said of a point.

    `fail`: a VM of this image will not boot, cannot be reached, or shares a secret with the
    others. `warn`: it works, and not as one would expect of a cloud's image. `unknown`:
    nothing that is known here decides it.
    """

    PASS = "pass"  # noqa: S105 - no password
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "unknown"


class Finding(BaseModel):
    """One point of the check.

    Attributes:
        point: Its short name, and `title` in words.
        verdict: What is said of it.
        evidence: What that rests on: files of the image, and what they say.
        hint: What to do about it; empty where nothing has to be done.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    point: str
    title: str
    verdict: Verdict
    evidence: tuple[str, ...] = ()
    hint: str = ""


class CheckReport(BaseModel):
    """A static check.

    Attributes:
        sha256: Of the image's file, as it was checked.
        checked_at: When.
        method: How it was looked into.
        findings: All points, in the check's order.
        root: What its root file system is; None where that is not known.
        cloud_init: Its cloud-init, where it has one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    checked_at: datetime
    method: str
    findings: tuple[Finding, ...]
    root: Kind | None = None
    cloud_init: CloudInit | None = None

    def of(self, *verdicts: Verdict) -> tuple[Finding, ...]:
        """The findings with one of these verdicts."""
        return tuple(one for one in self.findings if one.verdict in verdicts)

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return not self.of(Verdict.FAIL)

    @property
    def injectable(self) -> bool:
        """Whether step 30 can write into it, by debugfs."""
        return self.root in EXT

    @property
    def summary(self) -> str:
        """The result in a line."""
        counts = [(len(self.of(verdict)), verdict) for verdict in Verdict]
        return ", ".join(f"{count} {verdict}" for count, verdict in counts if count)


_SHORT = 160
#: Of more lines it is told how many there are.
_MOST_EVIDENCE = 50


class Notes:
    """What a point gathers while it looks: evidence, and what is wrong with it."""

    def __init__(self) -> None:
        self._evidence: list[str] = []
        self._verdict = Verdict.PASS
        self._hint = ""

    def saw(self, evidence: str) -> None:
        """Note what speaks for it."""
        self._evidence.append(_line(evidence))

    def nothing(self, where: str) -> None:
        """Note that nothing is there that would speak against it, where that is so."""
        if self._verdict is Verdict.PASS:
            self.saw(f"nothing in {where}")

    def warn(self, evidence: str, hint: str = "") -> None:
        """Note what is not as it should be."""
        self._add(Verdict.WARN, evidence, hint)

    def fail(self, evidence: str, hint: str = "") -> None:
        """Note what is wrong."""
        self._add(Verdict.FAIL, evidence, hint)

    def unknown(self, evidence: str, hint: str = "") -> None:
        """Note that nothing decides it."""
        self._add(Verdict.UNKNOWN, evidence, hint)

    def finding(self, point: str, title: str) -> Finding:
        """The finding."""
        told = self._evidence[:_MOST_EVIDENCE]
        if more := len(self._evidence) - len(told):
            told.append(f"and {more} more")
        return Finding(
            point=point,
            title=title,
            verdict=self._verdict,
            evidence=tuple(told),
            hint=self._hint,
        )

    def _add(self, verdict: Verdict, evidence: str, hint: str) -> None:
        order: Sequence[Verdict] = (Verdict.PASS, Verdict.UNKNOWN, Verdict.WARN, Verdict.FAIL)
        if order.index(verdict) > order.index(self._verdict):
            self._verdict, self._hint = verdict, hint
        self._evidence.append(_line(evidence))


def _line(text: str) -> str:
    """One printable line: evidence quotes files of an image that one does not trust."""
    plain = "".join(char if char.isprintable() else "?" for char in text)
    return plain if len(plain) <= _SHORT else f"{plain[: _SHORT - 1]}…"
