"""Changes to a VM's ports, each one a Prefect task that can be repeated."""

from __future__ import annotations

from blocks.resources import PortRequest
from tasks.one_change import Changes
from tasks.port_actions import ACTIONS, wrong

PORT_CHANGES = Changes("port", PortRequest, "port:change", wrong, ACTIONS)
