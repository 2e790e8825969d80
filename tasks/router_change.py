"""Changes to a router, each one a Prefect task that can be repeated."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any

from prefect import get_run_logger, task
from prefect.client.schemas.objects import State
from prefect.states import Completed

from blocks.changes import collecting
from blocks.errors import Conflict, FiftyError, InvalidRequest, NotFound
from blocks.resources import Router, RouterRequest
from blocks.settings import settings
from blocks.state import Caller
from blocks.world import World, open_world
from tasks.access import identify
from tasks.draft import describe_all
from tasks.policy import allows, check_policy
from tasks.router_legs import add_interface, clear_gateway, refresh_router, set_gateway
from tasks.session import as_form, refused

NEEDS_NETWORK = ("add-interface", "set-gateway")


def change(request: RouterRequest | Mapping[str, Any]) -> State[Any]:
    """Carry out one change to a router.

    Returns:
        Completed, or Failed with the name Refused.
    """
    try:
        form = as_form(request)
        errors = describe_all(RouterRequest, form)
        wanted = None if errors else RouterRequest.model_validate(form)
        if wanted and wanted.action in NEEDS_NETWORK and wanted.network is None:
            errors.append(f"network: {wanted.action} needs one")
        if errors or wanted is None:
            raise InvalidRequest("the router request is wrong", details=errors)
        world = open_world(settings())
        caller = identify(world.store, wanted.credentials)
        check_policy(caller, "router:change")
        return Completed(message=apply_change(world, caller, wanted))
    except FiftyError as error:
        return refused(error)


def apply_change(world: World, caller: Caller, request: RouterRequest) -> str:
    """Run the change as a Prefect task of its own name."""
    action = _ACTIONS[request.action]

    def body(router: str, network: str | None) -> str:
        del router, network
        with collecting() as changes:
            words = action(world, caller, request)
        for made in changes:
            get_run_logger().info("%s\n  # %s", made.what, made.command)
        return words

    body.__name__ = request.action.replace("-", "_")
    title = f"{request.action} {request.name}"
    return task(name=f"router {request.action}", task_run_name=title)(body)(
        request.name, request.network
    )


def _router(world: World, caller: Caller, request: RouterRequest) -> Router:
    """The caller's router of that name or id; for an admin any tenant's by its id."""
    routers = world.store.routers
    try:
        return routers.find(caller.tenant_id, request.name)
    except NotFound:
        if allows(caller, "any:foreign"):
            for router in routers.list():
                if router.id == request.name:
                    return router
        raise


def _create(world: World, caller: Caller, request: RouterRequest) -> str:
    router = Router(
        id=str(uuid.uuid4()),
        tenant_id=caller.tenant_id,
        name=request.name,
        host=world.store.host,
    )
    world.store.routers.create(router)
    return f"created the router {request.name}"


def _add_interface(world: World, caller: Caller, request: RouterRequest) -> str:
    store = world.store
    router = _router(world, caller, request)
    network = store.networks.find(router.tenant_id, request.network or "")
    if network.external or network.tenant_id != router.tenant_id:
        raise InvalidRequest(f"{network.name!r} is not one of the tenant's own networks")
    [subnet] = store.networks.subnets(network.id)
    for leg in router.legs:
        if leg.network.id != network.id and leg.subnet.cidr.overlaps(subnet.cidr):
            raise Conflict(f"{subnet.cidr} overlaps {leg.subnet.cidr} of {leg.network.name!r}")
    add_interface(router, network, subnet, store)
    refresh_router(router.id, store, world.fabric)
    return f"{network.name} is attached to {router.name}"


def _set_gateway(world: World, caller: Caller, request: RouterRequest) -> str:
    store = world.store
    router = _router(world, caller, request)
    outside = store.networks.find(router.tenant_id, request.network or "")
    set_gateway(router, outside, store, world.fabric)
    return f"{router.name} has its gateway in {outside.name}"


def _clear_gateway(world: World, caller: Caller, request: RouterRequest) -> str:
    router = _router(world, caller, request)
    clear_gateway(router, world.store, world.fabric)
    return f"{router.name} has no gateway"


def _delete(world: World, caller: Caller, request: RouterRequest) -> str:
    router = _router(world, caller, request)
    if router.legs:
        names = ", ".join(leg.network.name for leg in router.legs)
        raise Conflict(
            f"the router {router.name!r} is attached to {names}",
            hint="delete these networks first",
        )
    clear_gateway(router, world.store, world.fabric)
    world.fabric.remove_router(router.id)
    world.store.routers.delete(router.id)
    return f"{router.name} is deleted"


_ACTIONS: Mapping[str, Callable[[World, Caller, RouterRequest], str]] = {
    "create": _create,
    "add-interface": _add_interface,
    "set-gateway": _set_gateway,
    "clear-gateway": _clear_gateway,
    "delete": _delete,
}
