"""What a caller of the command line sees: its tenant's things, and what is for everybody.

The caller is whom the credentials stand for, as in the flows, whoever runs the command. The
store knows the credentials blocks that were used before; for others Prefect is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from blocks.errors import NotFound
from blocks.resources import FloatingIp, Image, Instance, Network, Router, SecurityGroup
from blocks.state import Build, Caller, StateStore
from deployments.cli.context import credentials_name, open_store
from tasks.policy import allows, check_credentials_name, check_enabled, check_policy


class _Owned(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def tenant_id(self) -> str | None: ...


Owned = TypeVar("Owned", bound=_Owned)


class Scope:
    """The state store as one caller sees it.

    What another tenant owns is as if it were not there; an admin can name it by its id.

    Args:
        store: The state store.
        caller: Who looks.
        credentials: The name of the caller's credentials block.
    """

    def __init__(self, store: StateStore, caller: Caller, credentials: str) -> None:
        self.store = store
        self.caller = caller
        self.credentials = credentials

    @property
    def is_admin(self) -> bool:
        """Whether the caller may look at other tenants' things."""
        return allows(self.caller, "any:foreign")

    def tenant(self, *, all_tenants: bool) -> str | None:
        """Whose things a list holds: the caller's tenant, or None for all.

        Raises:
            Denied: All are asked for, and the caller is no admin.
        """
        if not all_tenants:
            return self.caller.tenant_id
        check_policy(self.caller, "any:foreign")
        return None

    def vm(self, name: str) -> Instance:
        """A living VM by name or id.

        Raises:
            NotFound: There is none that the caller can see.
        """
        try:
            return self.store.instances.find(name, self.caller.tenant_id)
        except NotFound:
            for instance in self.store.instances.list() if self.is_admin else ():
                if instance.id == name:
                    return instance
            raise

    def build(self, name: str) -> Build:
        """The build of a VM: of the living one of that name or id, else the last one.

        Raises:
            NotFound: There never was one that the caller can see.
        """
        try:
            return self.store.builds.get(self.vm(name).id)
        except NotFound:
            pass  # refused before step 10, or deleted: only its build is left
        try:
            return self.store.builds.find(
                "vm",
                name,
                self.caller.tenant_id,
                credentials=self.credentials,
                foreign=self.is_admin,
            )
        except NotFound:
            raise NotFound(
                f"there is no VM {name!r}, and there never was a build of one",
                hint="`fifty vm list` shows those there are",
            ) from None

    def network(self, name: str) -> Network:
        """A network by name or id: the tenant's, a shared or an external one."""
        networks = self.store.networks
        mine = networks.list(self.caller.tenant_id)
        return self._the_one("network", name, mine, networks.list(), "`fifty network list`")

    def router(self, name: str) -> Router:
        """A router by name or id."""
        routers = self.store.routers
        mine = routers.list(self.caller.tenant_id)
        return self._the_one("router", name, mine, routers.list(), "`fifty router list`")

    def floating_ip(self, name: str) -> FloatingIp:
        """A floating IP by address or id."""
        try:
            return self.store.floating_ips.find(self.caller.tenant_id, name)
        except NotFound:
            for floating in self.store.floating_ips.list() if self.is_admin else ():
                if floating.id == name:
                    return floating
            raise

    def security_group(self, name: str) -> SecurityGroup:
        """A security group by name or id."""
        groups = self.store.groups
        mine = groups.list(self.caller.tenant_id)
        look = "`fifty security-group list`"
        return self._the_one("security group", name, mine, groups.list(), look)

    def image(self, name: str) -> Image:
        """An image by name, NAME:VERSION or id: the tenant's, or one that it may see."""
        images = self.store.images
        for image in images.list(None if self.is_admin else self.caller.tenant_id):
            if image.id == name:
                return image
        return images.find(self.caller.tenant_id, name)

    def _the_one(
        self, kind: str, name: str, visible: Sequence[Owned], all_: Sequence[Owned], look: str
    ) -> Owned:
        own_first = sorted(visible, key=lambda thing: thing.tenant_id != self.caller.tenant_id)
        for thing in own_first:
            if name in (thing.name, thing.id):
                return thing
        for thing in all_ if self.is_admin else ():
            if name == thing.id:
                return thing
        known = ", ".join(sorted({thing.name for thing in visible}))
        raise NotFound(
            f"there is no {kind} {name!r}; there are: {known or 'none'}",
            hint=f"{look} shows those there are",
        )


def open_scope(credentials: str | None) -> Scope:
    """The state store as the caller with these credentials sees it.

    Args:
        credentials: The name of the credentials block; None for the settings'.

    Raises:
        InvalidRequest: That is no name of a block.
        NotFound: `fifty init` has not been run.
        Denied: The credentials stand for nobody, or for a tenant that is disabled.
    """
    store = open_store()
    name = credentials_name(credentials)
    check_credentials_name(name)
    caller = store.tenants.caller_of(name)
    if caller is None:
        return Scope(store, _ask_prefect(store, name), name)
    check_enabled(caller)
    return Scope(store, caller, name)


def with_tenants(
    scope: Scope, found: list[dict[str, Any]], all_tenants: bool
) -> list[dict[str, Any]]:
    """Things of all tenants with their tenants' names; others as they are."""
    if not all_tenants:
        return found
    names = {tenant.id: tenant.name for tenant in scope.store.tenants.list()}
    return [{**item, "tenant": names.get(item["tenant_id"])} for item in found]


def _ask_prefect(store: StateStore, credentials: str) -> Caller:
    """Whom a credentials block stands for that the store has not seen yet."""
    from deployments.cli.flow_runs import connect

    connect()
    # After connect(): it imports Prefect.
    from tasks.access import identify

    return identify(store, credentials)
