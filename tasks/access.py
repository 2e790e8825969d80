"""Who a request comes from, and which builds it may be about."""

from __future__ import annotations

from dataclasses import asdict

from blocks.credentials.block import FiftyCredentials
from blocks.errors import Denied, NotFound
from blocks.loading import load_block
from blocks.state import Build, Caller, StateStore
from tasks.policy import allows, check_credentials_name, check_enabled, check_policy


def identify(store: StateStore, credentials: str) -> Caller:
    """Who a credentials block stands for.

    The block is read afresh, so that one that was edited in Prefect's UI is used as it is
    now; the store is told, for the commands that have no time for Prefect.

    Raises:
        InvalidRequest: That is no name of a block.
        Denied: There is no such block, its token is not known, or the tenant is disabled.
    """
    check_credentials_name(credentials)
    try:
        block = load_block(FiftyCredentials, credentials)
    except NotFound as error:
        raise Denied(
            f"there is no credentials block {credentials!r}",
            hint="`fifty init` makes `default`, `fifty tenant token --save` others",
        ) from error
    token = block.token.get_secret_value()
    caller = store.tenants.caller(token)
    if caller is None:
        raise Denied(
            f"the token of the credentials block {credentials!r} is not known",
            hint="it was revoked, or is another site's; an admin gives out a new one",
        )
    store.tenants.note_credentials(token, credentials)
    check_enabled(caller)
    return caller


def admitted(build: Build, store: StateStore, action: str) -> Caller:
    """Who asks for a build, recorded with it.

    Args:
        build: The build.
        store: The state store.
        action: What it does, as `POLICY` has it.

    Raises:
        Denied: They are not known, or may not.
    """
    caller = identify(store, build.credentials)
    store.builds.note(build.id, caller=asdict(caller))
    store.builds.update(build.id, tenant_id=caller.tenant_id)
    check_policy(caller, action)
    return caller


def authorized_build(
    store: StateStore, catalogue: str, name: str, credentials: str, purpose: str
) -> Build:
    """The build that a request is about, for a caller who may do this with it.

    What another tenant owns is as if it were not there; an admin may name it by its id.

    Args:
        store: The state store.
        catalogue: What is built: `vm`, `network`, `image`.
        name: Its name, or its id.
        credentials: The request's credentials block.
        purpose: What is to be done, as `POLICY` has it.

    Raises:
        Denied: The caller is not known, or its role may not.
        NotFound: There is none that the caller may see.
    """
    caller = identify(store, credentials)
    check_policy(caller, f"{catalogue}:{purpose}")
    return store.builds.find(
        catalogue,
        name,
        caller.tenant_id,
        credentials=credentials,
        foreign=allows(caller, "any:foreign"),
    )


def check_same_caller(store: StateStore, build: Build, credentials: str) -> None:
    """Check that a build that is there already is one of the tenant that asks again.

    Raises:
        Denied: The caller is not known, or its role may not create such a thing.
        NotFound: It is another tenant's.
    """
    caller = identify(store, credentials)
    check_policy(caller, f"{build.catalogue}:create")
    if build.tenant_id not in (None, caller.tenant_id):
        raise NotFound(f"there is no {build.catalogue} {build.name!r}")
