"""Delete a virtual machine: every step that made it is undone, in reverse."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from blocks.resources import VmReference
from flows.names import run_name
from tasks.session import delete
from tasks.vm_session import VM_KIND


@flow(name="delete-vm", flow_run_name=run_name, validate_parameters=False)
def delete_vm(request: VmReference) -> State[Any]:
    """Delete a virtual machine: every step that made it is undone, in reverse.

    A build that still works on it is stopped first. Ends Completed, also where it was gone
    already; *NeedsAttention* where an undo failed: the summary tells what is left, and another
    run tries that again.
    """
    return delete(VM_KIND, request)
