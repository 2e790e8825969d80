"""What a caller may do: step 3's policy, for every flow and every command.

Without Prefect, so that commands that only look can use it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from blocks.errors import Denied, InvalidRequest
from blocks.state import Caller
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
    "vm:start": Rule("member", "start a VM"),
    "vm:delete": Rule("member", "delete a VM"),
    "vm:run": Rule("member", "run something in a VM"),
    "vm:login": Rule("member", "log in to a VM"),
    "snapshot:create": Rule("member", "take a snapshot of a VM"),
    "snapshot:delete": Rule("member", "delete a snapshot of a VM"),
    "revert:create": Rule("member", "bring a VM back to a snapshot"),
    "vm:console": Rule("member", "read a VM's console"),
    "network:create": Rule("member", "create a network"),
    "network:create:external": Rule("admin", "create an external network"),
    "network:create:segment": Rule("admin", "choose the segment id"),
    "network:create:physical_bridge": Rule("admin", "use a bridge of the host"),
    "network:create:create_external": Rule("admin", "create an external network"),
    "network:create:physical_interface": Rule("admin", "use an interface of the host"),
    "network:create:port_security": Rule("admin", "turn port security off"),
    "network:delete": Rule("member", "delete a network"),
    "router:change": Rule("member", "change a router"),
    "floating-ip:change": Rule("member", "change a floating IP"),
    "security-group:change": Rule("member", "change a security group"),
    "port:change": Rule("member", "change a VM's ports"),
    "port:change:port_security": Rule("admin", "turn port security on or off"),
    "volume:change": Rule("member", "change a VM's volumes"),
    "image:change": Rule("member", "change an image"),
    "image:import": Rule("member", "import an image"),
    "image:import:file": Rule("admin", "import a file of the host"),
    "image:edit": Rule("member", "make an image from another one"),
    "image:check": Rule("member", "check an image"),
    "image:capture": Rule("member", "make an image of a VM"),
    "certificate:create": Rule("member", "certify an image"),
    "image:save": Rule("admin", "write an image to a file of the host"),
    "image:install": Rule("admin", "install an image from a medium of the host"),
    "image:create": Rule("member", "build an image"),
    "image:create:folder": Rule("admin", "build by a recipe in a folder of the host"),
    "image:create:public": Rule("admin", "make an image public"),
    "image:delete": Rule("member", "delete an image"),
    "flavor:change": Rule("admin", "make or delete flavors"),
    "key:create": Rule("member", "record a key pair"),
    "any:foreign": Rule("admin", "see or change what is another tenant's"),
}


def check_credentials_name(name: str) -> None:
    """Check the form of a credentials block's name.

    Raises:
        InvalidRequest: It is no name of a Prefect block.
    """
    if not _BLOCK_NAME.fullmatch(name):
        raise InvalidRequest(
            f"credentials: {name[:63]!r} is no name of a block",
            hint="lower-case letters, digits and hyphens, 63 at most",
        )


def check_enabled(caller: Caller) -> None:
    """Check that the caller's tenant is one whose requests are let in.

    Raises:
        Denied: The tenant is disabled.
    """
    if not caller.enabled:
        raise Denied(
            f"the tenant {caller.tenant!r} is disabled",
            hint=f"an operator can `fifty tenant enable {caller.tenant}`",
        )


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
