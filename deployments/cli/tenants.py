"""`fifty tenant`: who may use this site, and how much of it; for root."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from cyclopts import Parameter

from blocks.state import StateStore, Tenant
from deployments.cli import output
from deployments.cli.context import Json, Several, open_store, require_root
from deployments.cli.files import Findings
from deployments.cli.flow_runs import connect


def create(name: str, /, *, json: Json = False) -> None:
    """Make a tenant, with a default security group and a rate limit; one that is there is kept.

    Args:
        name: Its name.
    """
    require_root("making a tenant")
    store = open_store()
    connect()
    # After connect(): it imports Prefect.
    from deployments.tenants import create_tenant

    tenant, new = create_tenant(store, name)
    if json:
        output.document({**_document(store, tenant), "new": new})
        return
    shown = output.plain(name)
    output.say(f"The tenant {shown} is made." if new else f"The tenant {shown} was there already.")
    output.say(f"`fifty tenant token {shown} --role member --save BLOCK` lets somebody in.")


def list(*, json: Json = False) -> None:
    """List the tenants."""
    require_root("looking at tenants")
    store = open_store()
    found = [_document(store, tenant) for tenant in store.tenants.list()]
    if json:
        output.document(found)
        return
    output.table(
        ("NAME", "ENABLED", "TOKENS", "REQUESTS A MINUTE", "CREATED"),
        (
            (
                item["name"],
                "yes" if item["enabled"] else "no",
                len(item["tokens"]),
                item["rate_per_minute"],
                item["created_at"],
            )
            for item in found
        ),
        "There is no tenant yet. `fifty init` makes the first one.",
    )


def show(name: str, /, *, json: Json = False) -> None:
    """Show a tenant with its tokens, never their values, and its quota.

    Args:
        name: The tenant's name or id.
    """
    require_root("looking at tenants")
    store = open_store()
    tenant = store.tenants.find(name)
    found = {**_document(store, tenant), "quota": _quota(store, tenant)}
    if json:
        output.document(found)
        return
    output.facts(
        (
            ("name", found["name"]),
            ("id", found["id"]),
            ("enabled", "yes" if found["enabled"] else "no"),
            ("requests a minute", found["rate_per_minute"]),
            ("certificates", "required" if found["certified_images"] else "optional"),
            ("created", found["created_at"]),
            *(("token", _words(token)) for token in found["tokens"]),
            *(("quota", f"{q['resource']} {q['used']} of {q['limit']}") for q in found["quota"]),
        )
    )


def certificates(
    name: str, policy: Literal["required", "optional"], /, *, json: Json = False
) -> None:
    """Let a tenant make VMs of certified images only, or of all that are active.

    Args:
        name: The tenant's name or id.
        policy: Whether step 6 asks for a certificate.
    """
    require_root("changing a tenant")
    store = open_store()
    store.tenants.require_certificates(store.tenants.find(name).id, on=policy == "required")
    tenant = store.tenants.find(name)
    if json:
        output.document(_document(store, tenant))
    else:
        output.say(f"For {output.plain(tenant.name)} an image's certificate is {policy}.")


def disable(name: str, /, *, json: Json = False) -> None:
    """Refuse a tenant's requests from now on; what runs already goes on to its end.

    Args:
        name: The tenant's name or id.
    """
    _set_enabled(name, enabled=False, as_json=json)


def enable(name: str, /, *, json: Json = False) -> None:
    """Let a tenant's requests in again.

    Args:
        name: The tenant's name or id.
    """
    _set_enabled(name, enabled=True, as_json=json)


def _set_enabled(name: str, *, enabled: bool, as_json: bool) -> None:
    require_root("changing a tenant")
    store = open_store()
    store.tenants.set_enabled(store.tenants.find(name).id, enabled=enabled)
    tenant = store.tenants.find(name)
    if as_json:
        output.document(_document(store, tenant))
    else:
        output.say(
            f"The tenant {output.plain(tenant.name)} is {'enabled' if enabled else 'disabled'}."
        )


def token(
    name: str,
    /,
    *,
    role: Literal["reader", "member", "admin"],
    save: str | None = None,
    json: Json = False,
) -> None:
    """Make a token for a tenant; it is shown now and never again.

    Args:
        name: The tenant's name or id.
        role: What it lets its holder do: look, change what is the tenant's, or all.
        save: Also save it as the Prefect credentials block of this name.
    """
    require_root("making a token")
    store = open_store()
    tenant = store.tenants.find(name)
    connect()
    # After connect(): it imports Prefect.
    from deployments.tenants import issue_token

    issued = issue_token(store, tenant, role, save)
    if json:
        output.document(issued.model_dump())
        return
    output.facts(issued.model_dump().items())
    output.say("The token is shown this once; only its hash is kept.")
    if save is None:
        output.say("Save it as a block `Fifty Credentials` in Prefect; requests name that block.")


def revoke(token_id: str, /, *, json: Json = False) -> None:
    """Make a token stand for nobody; a Prefect block that holds it is of no use any more.

    Args:
        token_id: Its id, as `fifty tenant show` tells.
    """
    require_root("revoking a token")
    revoked = open_store().tenants.revoke(token_id)
    if json:
        output.document(revoked.model_dump(mode="json"))
    else:
        output.say(f"Revoked: {_words(revoked.model_dump(mode='json'))}")


def quota(
    name: str,
    /,
    *,
    set_: Annotated[Several, Parameter(name="--set")] = None,
    json: Json = False,
) -> None:
    """Show how much a tenant may hold and holds, or set it.

    Args:
        name: The tenant's name or id.
        set_: RESOURCE=LIMIT, such as instances=5; can be given several times.
    """
    require_root("a tenant's quota")
    store = open_store()
    tenant = store.tenants.find(name)
    known = {item["resource"] for item in _quota(store, tenant)}
    findings = Findings()
    limits = dict(findings.limit("--set", pair, known) for pair in set_ or ())
    findings.refuse()
    for resource, limit in limits.items():
        store.quota.set_limit(tenant.id, resource, limit)
    found = _quota(store, tenant)
    if json:
        output.document(found)
        return
    output.table(
        ("RESOURCE", "IN USE", "LIMIT"),
        ((item["resource"], item["used"], item["limit"]) for item in found),
        "",
    )


def _document(store: StateStore, tenant: Tenant) -> dict[str, Any]:
    tokens = [
        token.model_dump(mode="json", exclude={"tenant_id"})
        for token in store.tenants.tokens(tenant.id)
    ]
    return {**tenant.model_dump(mode="json"), "tokens": tokens}


def _quota(store: StateStore, tenant: Tenant) -> Any:  # noqa: ANN401 - `list` is a command here
    return [
        {"resource": resource, "used": used, "limit": limit}
        for resource, (used, limit) in store.quota.standing(tenant.id).items()
    ]


def _words(token: dict[str, Any]) -> str:
    block = f", in the block {token['credentials']}" if token["credentials"] else ""
    return f"{token['id']}: {token['role']}{block}, of {token['created_at']}"
