"""`fifty key`: the tenant's key pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from blocks.guest.key_files import make_key_pair
from blocks.settings import settings
from deployments.cli import output
from deployments.cli.context import AllTenants, Credentials, Json
from deployments.cli.files import Findings
from deployments.cli.scope import Scope, open_scope, with_tenants
from deployments.defaults import TENANT
from tasks.policy import check_policy


def create(
    name: str,
    /,
    *,
    public_key: Path | None = None,
    credentials: Credentials = None,
    json: Json = False,
) -> None:
    """Record a key pair; without a file, make one in FIFTY_HOME/keys.

    Args:
        name: The key pair's name.
        public_key: A file with a public key of yours.
    """
    scope = open_scope(credentials)
    check_policy(scope.caller, "key:create")
    private: Path | None = None
    if public_key is None:
        public, private = make_key_pair(_directory(scope), name)
    else:
        findings = Findings()
        public = findings.key(str(public_key.absolute()))
        findings.refuse()
    path = str(private) if private else None
    scope.store.keys.put(scope.caller.tenant_id, name, public, path)
    found = _document(scope.caller.tenant_id, name, public, path)
    if json:
        output.document(found)
    else:
        output.facts(found.items())


def _directory(scope: Scope) -> Path:
    """Where the tenant's private keys are: two tenants' keys may have the same name."""
    keys = settings().keys
    if scope.caller.tenant == TENANT:
        return keys
    # No key pair's name begins with a dot.
    directory = keys / f".{scope.caller.tenant_id}"
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory


def list(
    *, all_tenants: AllTenants = False, credentials: Credentials = None, json: Json = False
) -> None:
    """List the key pairs."""
    scope = open_scope(credentials)
    only = scope.tenant(all_tenants=all_tenants)
    tenants = [only] if only else [tenant.id for tenant in scope.store.tenants.list()]
    pairs = [
        _document(tenant, *pair) for tenant in tenants for pair in scope.store.keys.list(tenant)
    ]
    found = with_tenants(scope, pairs, all_tenants)
    if json:
        output.document(found)
        return
    output.things(
        ("NAME", "PUBLIC KEY", "PRIVATE KEY"),
        ((item["name"], item["public_key"], item["private_path"]) for item in found),
        found,
        "There is no key pair yet. `fifty key create NAME` makes one.",
    )


def _document(tenant_id: str, name: str, public: str, private: str | None) -> dict[str, Any]:
    return {
        "name": name,
        "public_key": public,
        "private_path": private,
        "tenant_id": tenant_id,
    }
