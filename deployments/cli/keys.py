"""`fifty key`: the tenant's key pairs."""

from __future__ import annotations

from pathlib import Path

from blocks.settings import settings
from deployments.cli import output
from deployments.cli.context import Json, open_store
from deployments.cli.files import Findings
from deployments.defaults import TENANT
from deployments.keys import make_key_pair


def create(
    name: str,
    /,
    *,
    public_key: Path | None = None,
    tenant: str = TENANT,
    json: Json = False,
) -> None:
    """Record a key pair; without a file, make one in FIFTY_HOME/keys.

    Args:
        name: The key pair's name.
        public_key: A file with a public key of yours.
        tenant: Whose.
    """
    store = open_store()
    tenant_id = store.tenants.id_of(tenant)
    private: Path | None = None
    if public_key is None:
        public, private = make_key_pair(settings().keys, name)
    else:
        findings = Findings()
        public = findings.key(str(public_key.absolute()))
        findings.refuse()
    store.keys.put(tenant_id, name, public, str(private) if private else None)
    found = _document(name, public, str(private) if private else None)
    if json:
        output.document(found)
    else:
        output.facts(found.items())


def list(*, tenant: str = TENANT, json: Json = False) -> None:
    """List the key pairs.

    Args:
        tenant: Whose.
    """
    store = open_store()
    pairs = store.keys.list(store.tenants.id_of(tenant))
    found = [_document(*pair) for pair in pairs]
    if json:
        output.document(found)
        return
    output.table(
        ("NAME", "PUBLIC KEY", "PRIVATE KEY"),
        ((item["name"], item["public_key"], item["private_path"]) for item in found),
        "There is no key pair yet. `fifty key create NAME` makes one.",
    )


def _document(name: str, public: str, private: str | None) -> dict[str, str | None]:
    return {"name": name, "public_key": public, "private_path": private}
