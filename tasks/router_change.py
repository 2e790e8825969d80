"""Changes to a router, each one a Prefect task that can be repeated."""

from __future__ import annotations

from blocks.resources import RouterRequest
from tasks.one_change import Changes
from tasks.router_actions import ACTIONS, wrong

ROUTER_CHANGES = Changes("router", RouterRequest, "router:change", wrong, ACTIONS)
