"""Who a request comes from."""

from __future__ import annotations

from blocks.credentials.block import FiftyCredentials
from blocks.errors import Denied, NotFound
from blocks.loading import load_block
from blocks.state import Caller, StateStore


def identify(store: StateStore, credentials: str) -> Caller:
    """Who a credentials block stands for.

    Raises:
        Denied: There is no such block, its token is not known, or the tenant is disabled.
    """
    try:
        block = load_block(FiftyCredentials, credentials)
    except NotFound as error:
        raise Denied(
            f"there is no credentials block {credentials!r}", hint="`fifty init` makes `default`"
        ) from error
    caller = store.tenants.caller(block.token.get_secret_value())
    if caller is None:
        raise Denied(f"the token of the credentials block {credentials!r} is not known")
    if not caller.enabled:
        raise Denied(f"the tenant {caller.tenant!r} is disabled", hint="ask an admin")
    return caller
