"""Run a command in a VM that is made for it."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from blocks.resources import JobRequest
from flows.create_vm import create_vm
from flows.delete_vm import delete_vm
from flows.names import run_name
from tasks.guest_job import run_job


@flow(name="run-in-vm", flow_run_name=run_name, validate_parameters=False)
def run_in_vm(request: JobRequest) -> State[Any]:
    """Run a command in a VM that is made for it, and keep what it says as an artifact.

    The VM is created by a run of create-vm and deleted by one of delete-vm, always; the run
    fails where the command does.
    """
    return run_job(
        request,
        create=lambda wanted: create_vm(wanted, return_state=True),
        delete=lambda wanted: delete_vm(wanted, return_state=True),
    )
