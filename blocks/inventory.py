"""What of ours is on the host: the common form in which each block tells its inventory."""

from __future__ import annotations

from typing import Protocol

from pydantic import BaseModel, ConfigDict


class Found(BaseModel):
    """One thing on the host that carries our mark.

    Attributes:
        kind: `domain`, `link`, `namespace`, `nft`, `process`, `directory`, `file`, ...
        name: What the host calls it.
        owner: The id it was made for (instance, port, network, router, volume).
        age_s: How long it has been there, where that can be told (see `blocks.ages`).
        detail: More of what identifies it (a pid, a path, an address).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    name: str
    owner: str
    age_s: float | None = None
    detail: str = ""

    @property
    def identity(self) -> tuple[str, str, str]:
        """What tells it from everything else on the host: kind, name, owner."""
        return self.kind, self.name, self.owner


class HasInventory(Protocol):
    """A part of the world that can tell what of ours is there, and remove one of it."""

    def inventory(self) -> list[Found]:
        """All that carries this site's mark, in a stable order."""
        ...

    def remove(self, found: Found) -> None:
        """Remove one thing that `inventory` told of; already gone is fine."""
        ...
