"""Steps 1 to 11, the API: who asks, may they, is it right, and is there room for it."""

from __future__ import annotations

import secrets
import uuid
from dataclasses import asdict
from typing import Any

from httpx import HTTPStatusError
from prefect.artifacts import create_progress_artifact
from prefect.client.orchestration import get_client
from prefect.events import emit_event
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from blocks.changes import record
from blocks.errors import Conflict, InvalidRequest, NotFound, RateLimited, Transient
from blocks.images import ImageStore
from blocks.resources import Instance, InstanceStatus, PortKind, TaskState, VmRequest
from blocks.state import Build, Caller, StateStore
from blocks.state.tables.base import now
from tasks.access import identify
from tasks.draft import Draft
from tasks.policy import check_policy
from tasks.request_checks import (
    about,
    check_user_data_for,
    unknown_names,
    usable_image,
    usable_networks,
    valid_words,
    wrong_secret,
)
from tasks.vm_build import VM
from tasks.vm_floating_ip import check_floating_ip

step = VM.stage("A")


@step(1, "Authenticate the caller")
def authenticate(build: Build, store: StateStore) -> str:
    """Check the token of the named credentials block against the tenants' hashes.

    Here Keystone's middleware validates the token of the request
    (`keystonemiddleware.auth_token`). Only the block's name is in the request.
    """
    caller = identify(store, build.credentials)
    store.builds.note(build.id, caller=asdict(caller))
    store.builds.update(build.id, tenant_id=caller.tenant_id)
    return f"{caller.tenant} ({caller.role})"


@step(2, "Limit the rate")
def limit_rate(build: Build, caller: Caller, plan: dict[str, Any], store: StateStore) -> str:
    """Take one of the tenant's slots of this minute from a Prefect rate limit.

    Here OpenStack has oslo.limit and, before it, Nova's rate-limiting middleware. A
    caller over the limit is refused at once, and told when to come back, not made to wait.
    """
    name = rate_limit_name(caller.tenant)
    if "rate_limit" in plan:
        # Tried again, it is the same request: it has its slot.
        return name
    # Prefect's client would wait two seconds after a 503, which an SQLite server gives when
    # it happens to be writing; the step's own retry comes sooner, and is seen.
    impatient = temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0})
    with impatient, get_client(sync_client=True) as client:
        try:
            taken = client.increment_concurrency_slots([name], 1, "rate_limit").json()
        except HTTPStatusError as error:
            if error.response.status_code == 503:
                raise Transient("the Prefect server was busy") from error
            if error.response.status_code != 423:
                raise
            wait = float(error.response.headers.get("Retry-After", "60"))
            raise RateLimited(
                f"more than {caller.rate_per_minute} requests a minute of {caller.tenant!r}",
                hint=f"try again in {wait:.0f} s",
            ) from error
    if not taken:
        raise NotFound(f"there is no rate limit {name!r}", hint="run `fifty init` again")
    store.builds.note(build.id, rate_limit=name)
    return name


def rate_limit_name(tenant: str) -> str:
    """The name of a tenant's rate limit in Prefect."""
    return f"fifty-requests-{tenant}"


@step(3, "Authorize the action")
def authorize(caller: Caller, form: dict[str, Any]) -> str:
    """Apply the role policy: readers look, members create, only admins force a host.

    Here Nova checks `os_compute_api:servers:create` and `...:create:forced_host`
    (oslo.policy).
    """
    check_policy(caller, "vm:create")
    if form.get("host") is not None:
        check_policy(caller, "vm:create:host")
    return caller.role


@step(4, "Validate the request")
def validate_request(build: Build, caller: Caller, draft: Draft, store: StateStore) -> str:
    """Check the form and the limits of every field, and that the name is free.

    Here Nova's API validates against JSON schema (`nova.api.validation`) and gives the
    first error; this gives all of them, together with those of steps 5 to 8.
    """
    secret = wrong_secret(draft)
    if draft.errors:
        wrong = [*draft.errors, *([secret.message] if secret else [])]
        raise InvalidRequest(f"{len(wrong)} field(s) are wrong", details=wrong)
    if secret:
        raise secret
    name = draft.valid("name")
    try:
        other = store.instances.find(name, caller.tenant_id)
    except NotFound:
        return valid_words(draft)
    if other.id != build.id:
        raise Conflict(
            f"name: a VM named {name!r} is there already ({other.status})",
            hint=f"choose another name, or `fifty vm delete {name}` first",
        )
    return valid_words(draft)


@step(5, "Resolve the flavor")
def resolve_flavor(draft: Draft, store: StateStore) -> dict[str, Any] | None:
    """Look the flavor up: processors, memory, disk and limits.

    Here Nova's API loads the flavor by its id (`nova.compute.flavors`); as there, the
    instance keeps a copy, so that a later change of the flavor does not change the VM.
    """
    name = draft.valid("flavor")
    if name is None:
        return None
    with about("flavor"):
        return store.flavors.get(name).model_dump(mode="json")


@step(6, "Resolve the image")
def resolve_image(
    build: Build, caller: Caller, draft: Draft, store: StateStore, images: ImageStore
) -> str | None:
    """Look the image up: active, certified where that is wanted, fit for flavor and user data.

    Here Nova's API asks Glance and compares `min_ram`, `min_disk` and the virtual size
    (`nova.compute.api.API._validate_flavor_image`). It never looks at user data; what
    cloud-init cannot use, it tells the guest's own log.
    """
    name = draft.valid("image")
    if name is None:
        return None
    with about("image"):
        image = usable_image(build, caller, draft, store, name)
    check_user_data_for(draft, image, images)
    return image.id


@step(7, "Resolve the networks")
def resolve_networks(caller: Caller, draft: Draft, store: StateStore) -> list[str] | None:
    """Look the networks up, and check that each has a free address, or the one asked for.

    Here Nova's API asks Neutron (`nova.network.neutron.API.validate_networks`).
    """
    names = draft.valid("networks")
    if names is None:
        return None
    found = usable_networks(caller, draft, store)
    if draft.valid("floating"):
        with about("floating"):
            check_floating_ip(caller, found, store)
    return found


@step(8, "Resolve key pair and security groups")
def resolve_key_and_groups(caller: Caller, draft: Draft, store: StateStore) -> list[str]:
    """Look up the key pair, the security groups and the VMs named in scheduler hints.

    Here Nova's API loads the key pair and asks Neutron for the groups
    (`nova.compute.api.API._check_requested_secgroups`).
    """
    wrong = unknown_names(caller, draft, store)
    if wrong:
        raise NotFound("; ".join(wrong), details=wrong if len(wrong) > 1 else ())
    return list(draft.valid("security_groups") or ())


def release_quota(build: Build, store: StateStore) -> None:
    """Give back what step 9 reserved."""
    if store.quota.release(build.id):
        record("Released the quota", f"fifty: release the quota of {build.id}")


@step(9, "Reserve quota", undo=release_quota)
def reserve_quota(build: Build, caller: Caller, request: VmRequest, store: StateStore) -> None:
    """Reserve instances, cores, memory, ports, volumes and gigabytes in one transaction.

    Here Nova and Cinder each check their quota (`nova.quota`, `cinder.quota`), and
    Neutron its own, one after the other.
    """
    flavor = store.flavors.get(request.flavor)
    amounts = {
        "instances": 1,
        "cores": flavor.vcpus,
        "ram_mib": flavor.ram_mib,
        "ports": len(request.networks),
        "volumes": len(request.volumes),
        "gigabytes": sum(request.volumes),
    }
    store.quota.reserve(caller.tenant_id, build.id, amounts)
    words = ", ".join(f"{name} {amount}" for name, amount in amounts.items() if amount)
    record(f"Reserved quota: {words}", f"openstack quota show --usage {caller.tenant}")


def forget_plans(build: Build, store: StateStore) -> None:
    """Forget the ports and volumes that step 10 planned; the instance's row stays."""
    for port in store.ports.of_device(build.id):
        store.ports.delete(port.id)
    store.volumes.forget(build.id)


@step(10, "Record the instance", undo=forget_plans)
def record_instance(build: Build, caller: Caller, request: VmRequest, store: StateStore) -> str:
    """Record the instance in BUILD, with the ids of all that it will have.

    Here Nova writes the build request, the request spec and the instance mapping
    (`nova.compute.api.API._provision_instances`). Every id is chosen now: from here on,
    do and undo find what they need by recorded id.
    """
    image = store.images.find(caller.tenant_id, request.image)
    time = now()
    instance = Instance(
        id=build.id,
        tenant_id=caller.tenant_id,
        name=request.name,
        status=InstanceStatus.BUILD,
        task_state=TaskState.SCHEDULING,
        flavor=store.flavors.get(request.flavor),
        image_id=image.id,
        image_name=image.name,
        generation=build.generation,
        request_id=build.request_id,
        flow_run_id=build.flow_run_id,
        created_at=time,
        updated_at=time,
    )
    store.instances.record(instance)
    ports = [
        store.ports.plan(
            port_id=str(uuid.uuid5(uuid.UUID(build.id), f"port {build.generation} {index}")),
            tenant_id=caller.tenant_id,
            network_id=store.networks.find(caller.tenant_id, nic.network).id,
            kind=PortKind.COMPUTE,
            device_id=build.id,
            index=index,
        )
        for index, nic in enumerate(request.nics)
    ]
    store.builds.note(
        build.id,
        ports=[port.model_dump(mode="json") for port in ports],
        seed=secrets.token_hex(512),
    )
    store.volumes.plan(instance, request.volumes)
    volumes = [volume.model_dump(mode="json") for volume in store.volumes.of(instance.id)]
    store.builds.note(build.id, volumes=volumes)
    record(f"Recorded the instance {build.id} in BUILD", f"openstack server show {request.name}")
    return build.id


@step(11, "Publish the build request")
def publish_request(build: Build, instance: Instance, store: StateStore) -> str:
    """Tell the world: a Prefect event, and the run's progress artifact.

    Here Nova's API casts `build_instances` to the conductor over RabbitMQ and sends the
    notification `instance.create.start`.
    """
    emit_event(
        event="fifty.vm.build.requested",
        resource={
            "prefect.resource.id": f"fifty.vm.{instance.id}",
            "prefect.resource.name": instance.name,
            "fifty.tenant": instance.tenant_id,
        },
        payload={"image": instance.image_name, "flavor": instance.flavor.name},
    )
    artifact = create_progress_artifact(
        progress=20.0,
        key=f"vm-{instance.name}-progress",
        description=f"{instance.name}: 10 of 50 steps",
    )
    store.builds.note(build.id, progress_artifact=str(artifact))
    return str(artifact)
