"""Changes to a floating IP, each one a Prefect task that can be repeated."""

from __future__ import annotations

from blocks.resources import FloatingIpRequest
from tasks.floating_ip_actions import ACTIONS, wrong
from tasks.one_change import Changes

FLOATING_IP_CHANGES = Changes(
    "floating-ip", FloatingIpRequest, "floating-ip:change", wrong, ACTIONS
)
