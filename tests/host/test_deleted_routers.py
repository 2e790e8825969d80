"""Steps 33 and 34 while somebody deletes a router: it is passed over, and nothing is left of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from blocks import marks
from blocks.errors import NotFound
from blocks.fabric import namespaces
from blocks.resources import Router
from tasks.steps_31_38_network import connect_outside, realize_routers, remove_forgotten_routers
from tests.host.fabric_lab import Lab, lab_at

if TYPE_CHECKING:
    from blocks.resources import VmRequest
    from blocks.state import Build, StateStore

pytestmark = pytest.mark.host


class Records:
    """The routers as they are recorded; the first look at one may find it deleted meanwhile."""

    def __init__(self, *routers: Router) -> None:
        self.there = {router.id: router for router in routers}
        self.before_the_next_look: Callable[[], object] | None = None

    def get(self, router_id: str) -> Router:
        if self.before_the_next_look:
            self.before_the_next_look()
            self.before_the_next_look = None
        if router_id not in self.there:
            raise NotFound(f"there is no router {router_id}")
        return self.there[router_id]

    def list(self) -> list[Router]:
        return [*self.there.values()]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with lab_at(tmp_path) as lab:
        yield lab


@pytest.mark.parametrize("when", ["before step 33", "in step 33", "in step 34"])
def test_a_router_that_was_deleted_meanwhile_is_passed_over(lab: Lab, when: str) -> None:
    """The build goes on with its other router, and its undo takes away what it had made."""
    outside = lab.net("198.51.100.0/24", external=True)
    routers = [lab.router(lab.net(f"10.{each}.0.0/24"), outside=outside) for each in (1, 2)]
    goes, stays = routers
    records, noted = Records(*routers), dict[str, list[str]]()
    builds = SimpleNamespace(note=lambda _build, **plan: noted.update(plan))
    store = cast("StateStore", SimpleNamespace(host="lab", routers=records, builds=builds))
    build = cast("Build", SimpleNamespace(id="build", state="building"))
    request = cast("VmRequest", SimpleNamespace(floating=False))

    def there() -> list[bool]:
        return [namespaces.exists(marks.router_namespace(each.id)) for each in routers]

    if when == "before step 33":
        del records.there[goes.id]
    elif when == "in step 33":
        records.before_the_next_look = lambda: records.there.pop(goes.id)
    names = realize_routers.do(build, routers, lab.fabric, store)
    assert names == ["router", "router"]
    assert noted == {"routers": [goes.id, stays.id]}
    assert there() == [when == "in step 34", True]
    if when == "in step 34":
        # Whoever deletes it takes its record first, and then waits for the router's lock.
        records.before_the_next_look = lambda: records.there.pop(goes.id)
    connect_outside.do(build, request, [], routers, lab.fabric, store)
    assert there() == [when == "in step 34", True]
    assert lab.fabric.router_differences(stays) == []
    remove_forgotten_routers(noted, lab.fabric, store)
    assert there() == [False, True]
    assert lab.fabric.router_differences(stays) == []
