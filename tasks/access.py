"""Who a request comes from, and what it may do: step 3's policy, for every flow."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from blocks.credentials.block import FiftyCredentials
from blocks.errors import Denied, NotFound
from blocks.loading import load_block
from blocks.state import Build, Caller, StateStore
from blocks.state.tenants import ROLES

_BLOCK_NAME = re.compile(r"[a-z0-9-]{1,63}")


@dataclass(frozen=True)
class Rule:
    """Who may do something.

    Attributes:
        least: The least of `ROLES` that may.
        words: What it is, after "may not".
    """

    least: str
    words: str


#: The policy (oslo.policy's rules): a reader looks, a member changes what is its tenant's, an
#: admin also what is the host's and, by its id, what is another tenant's.
POLICY: Mapping[str, Rule] = {
    "vm:create": Rule("member", "create a VM"),
    "vm:create:host": Rule("admin", "force a host"),
    "vm:resume": Rule("member", "go on with a build"),
    "vm:rollback": Rule("member", "undo a build"),
    "vm:delete": Rule("member", "delete a VM"),
    "vm:run": Rule("member", "run something in a VM"),
    "network:create": Rule("member", "create a network"),
    "network:create:external": Rule("admin", "create an external network"),
    "network:create:physical_bridge": Rule("admin", "use a bridge of the host"),
    "network:delete": Rule("member", "delete a network"),
    "router:change": Rule("member", "change a router"),
    "image:create": Rule("member", "build an image"),
    "image:create:public": Rule("admin", "make an image public"),
    "image:delete": Rule("member", "delete an image"),
    "key:create": Rule("member", "record a key pair"),
    "any:foreign": Rule("admin", "see or change what is another tenant's"),
}


def identify(store: StateStore, credentials: str) -> Caller:
    """Who a credentials block stands for.

    The block is read afresh, so that one that was edited in Prefect's UI is used as it is
    now; the store is told, for the commands that have no time for Prefect.

    Raises:
        Denied: There is no such block, its token is not known, or the tenant is disabled.
    """
    if not _BLOCK_NAME.fullmatch(credentials):
        raise Denied(
            "that is no name of a credentials block",
            hint="lower-case letters, digits and hyphens, 63 at most",
        )
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
    return enabled(caller)


def enabled(caller: Caller) -> Caller:
    """The caller, if its tenant is one whose requests are let in.

    Raises:
        Denied: The tenant is disabled.
    """
    if not caller.enabled:
        raise Denied(
            f"the tenant {caller.tenant!r} is disabled",
            hint=f"an operator can `fifty tenant enable {caller.tenant}`",
        )
    return caller


def allows(caller: Caller, action: str) -> bool:
    """Whether the caller's role may do something.

    Args:
        caller: Who asks.
        action: One of `POLICY`.
    """
    return ROLES.index(caller.role) >= ROLES.index(POLICY[action].least)


def check_policy(caller: Caller, action: str) -> None:
    """Apply the policy.

    Raises:
        Denied: The caller's role may not do this.
    """
    if not allows(caller, action):
        rule = POLICY[action]
        article = "an" if caller.role == "admin" else "a"
        raise Denied(
            f"{article} {caller.role} may not {rule.words}",
            hint=f"use credentials of a token with the role {rule.least}",
        )


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
