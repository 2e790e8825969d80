"""Certification: an image is booted, and looked at from inside and from outside.

The seed's eleven tests ("After a Linux image is installed, you must test it"). Here is how
each is decided by its evidence; `tasks` gets the evidence from a guest.
"""

from blocks.images.certification.certificate import (
    TESTS,
    Certificate,
    Outcome,
    Verdict,
    certify,
    why_not_certified,
)
from blocks.images.certification.inside import INSIDE, Wanted
from blocks.images.certification.outside import (
    Login,
    Trial,
    boot_log,
    key_login,
    not_applicable,
    not_run,
    snapshot,
    volume,
)

__all__ = [
    "INSIDE",
    "TESTS",
    "Certificate",
    "Login",
    "Outcome",
    "Trial",
    "Verdict",
    "Wanted",
    "boot_log",
    "certify",
    "key_login",
    "not_applicable",
    "not_run",
    "snapshot",
    "volume",
    "why_not_certified",
]
