"""Changes to a security group, each one a Prefect task that can be repeated."""

from __future__ import annotations

from blocks.resources import SecurityGroupRequest
from tasks.one_change import Changes
from tasks.security_group_actions import ACTIONS, wrong

SECURITY_GROUP_CHANGES = Changes(
    "security-group",
    SecurityGroupRequest,
    "security-group:change",
    wrong,
    ACTIONS,
    drawn=False,
)
