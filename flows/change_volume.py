"""Change a VM's volumes: plug one in, also a new one, or unplug one."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from blocks.resources import VolumeRequest
from flows.names import run_name
from tasks.one_change import carry_out
from tasks.volume_actions import VOLUME_CHANGES


@flow(name="change-volume", flow_run_name=run_name, validate_parameters=False)
def change_volume(request: VolumeRequest) -> State[Any]:
    """Change the volumes of a VM that is there, running or off.

    A new one is in the guest at once; one that is to go does so when the guest lets it, and
    stays the VM's, to be plugged in again, unless it is to be deleted.
    """
    return carry_out(VOLUME_CHANGES, request)
