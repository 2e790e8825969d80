"""Tenants and their tokens: what the state store and the Prefect server hold of them.

Imports Prefect, so `prefect_settings.prepare` comes first.
"""

from __future__ import annotations

from prefect.client.orchestration import get_client
from pydantic import BaseModel, TypeAdapter, ValidationError

from blocks.credentials.block import FiftyCredentials
from blocks.errors import Conflict, InvalidRequest, NotFound
from blocks.loading import load_block
from blocks.resources.base import ResourceName
from blocks.resources.form import CredentialsName
from blocks.state import StateStore, Tenant
from tasks.steps_01_11_api import rate_limit_name


class IssuedToken(BaseModel):
    """A token that was just made: the only time that its value is seen.

    Attributes:
        credentials: The Prefect block that holds it, where it was saved to one.
    """

    id: str
    tenant: str
    role: str
    token: str
    credentials: str | None


def create_tenant(store: StateStore, name: str) -> tuple[Tenant, bool]:
    """Make a tenant with all that it needs for its first VM, or complete one.

    That is a default security group and a rate limit in Prefect; quota has defaults.

    Returns:
        The tenant, and whether it is new.

    Raises:
        InvalidRequest: That is no name for a tenant.
    """
    try:
        TypeAdapter(ResourceName).validate_python(name)
    except ValidationError as error:
        raise InvalidRequest(
            f"{name!r} is no name for a tenant",
            hint="letters, digits, dot, underscore and hyphen, 63 at most",
        ) from error
    new = name not in {tenant.name for tenant in store.tenants.list()}
    tenant = store.tenants.find(store.tenants.create(name))
    store.groups.ensure_default(tenant.id)
    limit_rate(tenant)
    return tenant, new


def limit_rate(tenant: Tenant) -> None:
    """Make the tenant's rate limit in Prefect be what is recorded."""
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(
            rate_limit_name(tenant.name),
            tenant.rate_per_minute,
            slot_decay_per_second=tenant.rate_per_minute / 60,
        )


def issue_token(store: StateStore, tenant: Tenant, role: str, save: str | None) -> IssuedToken:
    """Make a token, and save it as a credentials block where that is asked for.

    Args:
        store: The state store.
        tenant: Whose token.
        role: What it lets its holder do.
        save: The name of the block; one of the same tenant is overwritten, and the token
            that it held stays valid until it is revoked.

    Raises:
        InvalidRequest: That is no name for a block.
        Conflict: The block is another tenant's.
    """
    if save is not None:
        _refuse_foreign_block(store, tenant, save)
    value = store.tenants.issue_token(tenant.id, role)
    issued = store.tenants.token(value)
    assert issued is not None  # noqa: S101 - it was issued above
    try:
        if save is not None:
            save_credentials(store, value, save)
    except BaseException:
        # Nobody has seen it: a token that nobody can use is none.
        store.tenants.revoke(issued.id)
        raise
    return IssuedToken(id=issued.id, tenant=tenant.name, role=role, token=value, credentials=save)


def save_credentials(store: StateStore, token: str, name: str) -> None:
    """Save a token as a credentials block, and remember which one."""
    FiftyCredentials.model_validate({"token": token}).save(name, overwrite=True)
    store.tenants.note_credentials(token, name)


def _refuse_foreign_block(store: StateStore, tenant: Tenant, name: str) -> None:
    try:
        TypeAdapter(CredentialsName).validate_python(name)
    except ValidationError as error:
        raise InvalidRequest(
            f"{name!r} is no name for a credentials block",
            hint="lower-case letters, digits and hyphens, 63 at most",
        ) from error
    try:
        held = load_block(FiftyCredentials, name).token.get_secret_value()
    except NotFound:
        return
    owner = store.tenants.caller(held)
    if owner is not None and owner.tenant_id != tenant.id:
        raise Conflict(
            f"the credentials block {name!r} holds a token of the tenant {owner.tenant!r}",
            hint="choose another name, or delete that block first",
        )
