"""Events of instances: `fifty.vm.<status>`, one for each change of a status.

OpenStack sends such as `instance.update` notifications (`nova.notifications`). An event is
handed to Prefect's background thread: a build does not wait for the server to take it.
"""

from __future__ import annotations

from typing import Any

from prefect.context import FlowRunContext
from prefect.events import emit_event

from blocks.resources import Instance, InstanceStatus
from blocks.state import StateStore


def announce(store: StateStore) -> None:
    """Emit an event for each change of an instance's status that is made through this store."""

    def tell(instance: Instance, before: InstanceStatus | None) -> None:
        emit_event(
            event=event_name(instance.status),
            resource=resource_of(instance),
            payload=_payload(store, instance, before),
        )

    store.instances.listener = tell


def event_name(status: InstanceStatus) -> str:
    """The event of a VM that has got this status: `fifty.vm.needs-attention`, and the like."""
    return f"fifty.vm.{status.lower().replace('_', '-')}"


def resource_of(instance: Instance) -> dict[str, str]:
    """An instance as the resource that an event is about."""
    return {
        "prefect.resource.id": f"fifty.vm.{instance.id}",
        "prefect.resource.name": instance.name,
        "fifty.tenant": instance.tenant_id,
    }


def _payload(
    store: StateStore, instance: Instance, before: InstanceStatus | None
) -> dict[str, Any]:
    """What an event tells; chosen field by field, so that no secret comes with it."""
    plan = store.builds.get(instance.id).plan
    context = FlowRunContext.get()
    run = context.flow_run.id if context and context.flow_run else instance.flow_run_id
    fault = instance.fault
    return {
        "name": instance.name,
        "tenant": store.tenants.find(instance.tenant_id).name,
        "before": before,
        "status": instance.status,
        # After a rollback no host has it any more: then the one on which it failed.
        "host": instance.host or plan.get("host"),
        "flavor": instance.flavor.name,
        "image": instance.image_name,
        "addresses": [
            str(held.address)
            for port in store.ports.of_device(instance.id)
            for held in port.addresses
        ],
        "fault": {key: fault.get(key) for key in ("error", "message", "step")} if fault else None,
        "flow_run_id": str(run) if run else None,
    }
