"""Go on with the build of a virtual machine where it stopped."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from blocks.resources import VmReference
from flows.create_vm import the_fifty
from flows.names import run_name
from tasks.session import resume
from tasks.vm_session import VM_KIND


@flow(name="resume-vm", flow_run_name=run_name, validate_parameters=False)
def resume_vm(request: VmReference) -> State[Any]:
    """Go on with the build of a virtual machine where it stopped.

    For a build that was kept, or whose process was killed. Finished steps are shown as Cached;
    the ends are those of `create-vm`. Refused where nothing stopped.
    """
    return resume(VM_KIND, request, the_fifty)
