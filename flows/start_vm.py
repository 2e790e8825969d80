"""Start a virtual machine that is off."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from blocks.resources import VmReference
from flows.names import run_name
from flows.restoration import VM_AGAIN
from tasks.session import start
from tasks.vm_session import VM_KIND


@flow(name="start-vm", flow_run_name=run_name, validate_parameters=False)
def start_vm(request: VmReference) -> State[Any]:
    """Start a virtual machine that is off: steps 31 to 50 are done again, on its own disks.

    For one that was shut down, whose QEMU was killed, or that could not be brought back after
    a reboot of its host. Its addresses, MAC addresses and data are as they were. Ends
    Completed when its guest answers, also where it runs already; *NotRestored* where a step
    failed: nothing is undone, and another run tries again.
    """
    return start(VM_KIND, request, VM_AGAIN)
