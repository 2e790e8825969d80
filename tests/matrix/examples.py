"""An example of each kind of thing that is built, for tests that are about all of them."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from flows.plans import PLANS
from tasks.step import Step
from tests.service.triggers import MICRO


@dataclass(frozen=True)
class Example:
    """A kind of thing, and a request in which every step has something to do.

    Attributes:
        kind: Its catalogue's name.
        fields: The request, without the name.
        makes_router: Whether it makes a router and an external network, which its delete
            leaves to others.
        last: The last of its steps, where others have further ones in the same catalogue.
    """

    kind: str
    fields: Mapping[str, object] = field(default_factory=dict)
    makes_router: bool = False
    last: int | None = None

    @property
    def create(self) -> str:
        """The flow that builds it."""
        return "build-image" if self.kind == "image" else f"create-{self.kind}"

    @property
    def delete(self) -> str:
        """The flow that deletes it."""
        return f"delete-{self.kind}"

    @property
    def steps(self) -> list[Step]:
        """Its steps, in order."""
        known = PLANS[self.kind][0].catalogue.steps.values()
        return [step for step in known if self.last is None or step.number <= self.last]

    def request(self, name: str) -> dict[str, object]:
        """What is asked for."""
        more = _router_and_outside(name) if self.makes_router else {}
        return {**self.fields, **more, "name": name}


def outside_of(name: str) -> str:
    """What the external network is called that is made with the network of a name."""
    return f"{name}-outside"


def _router_and_outside(name: str) -> dict[str, object]:
    """A router, and its gateway in an external network with addresses that no other has."""
    third, fourth = divmod(zlib.crc32(name.encode()) % 2**12, 16)
    outside = {"name": outside_of(name), "cidr": f"172.30.{third}.{fourth * 16}/28"}
    return {"router": name, "create_external": outside}


#: Those are about a VM or an image that is there: their own tests have their steps
#: (`tests/e2e/test_snapshots.py`, `tests/e2e/test_certification.py`).
OF_WHAT_IS_THERE = {"snapshot", "revert", "certificate"}
#: Of every other kind there must be one: `PLANS` is what the tests go by.
EXAMPLES = {
    example.kind: example
    for example in (
        Example("vm", {**MICRO, "volumes": [1], "floating": True}),
        Example("network", {"cidr": "10.78.0.0/24"}, makes_router=True),
        # From 11 on come the other ways to an image (`tests/host/test_images_import.py`, ...).
        Example("image", {"recipe": "micro"}, last=3),
    )
}

_CHANCE = (
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID"),
    (r"\b(brf|ovf|qvb|qvo|vx-|tap|ns-|qr-|qg-)[0-9a-f]{11}\b", r"\1ID"),
    (r"\bfifty-[0-9a-f]{8}-", "fifty-ID-"),
    (r"\b[0-9a-f]{2}(:[0-9a-f]{2}){5}\b", "MAC"),
    (r"\b(\d+\.){3}\d+\b", "ADDRESS"),
    # The checksum of a firewall rule, in its comment.
    (r" #[0-9a-f]{12}\b", " #SUM"),
    # Addresses and port marks as numbers.
    (r"\b\d{6,}\b", "NUMBER"),
    # A network's conntrack zone, and its segment.
    (r'(?<="ct": {"key": "zone"}}, "value": )\d+', "ZONE"),
    (r"\bzone-\d+\b", "zone-ZONE"),
    (r"(?<=^table segments: \+ vxlan )\d+", "SEGMENT"),
)


def shape(lines: Iterable[str], name: str) -> Counter[str]:
    """Lines of an inventory without all that is chosen by chance, or differs by the name."""
    found: Counter[str] = Counter()
    for line in lines:
        # QEMU's arguments hold numbers of libvirt's own.
        plain = " ".join(line.split()[:3]) if line.startswith("processes:") else line
        for pattern, word in _CHANCE:
            plain = re.sub(pattern, word, plain)
        found[plain.replace(name, "NAME")] += 1
    return found
