"""Undo the build of a virtual machine that did not get to its end."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from blocks.resources import VmReference
from flows.names import run_name
from tasks.session import rollback
from tasks.vm_session import VM_KIND


@flow(name="rollback-vm", flow_run_name=run_name, validate_parameters=False)
def rollback_vm(request: VmReference) -> State[Any]:
    """Undo the build of a virtual machine that did not get to its end.

    For a build that was kept or killed, and for one that needs attention, once the cause is
    gone. The record and its fault stay until the VM is deleted.
    """
    return rollback(VM_KIND, request)
