"""Take the served flows to the Prefect server: work pool, queues and deployments.

The same as `prefect deploy` with `deployments/prefect.yaml`, but without its minute of
start-up, and without taking back what an operator changed in the UI: `prefect deploy`
writes every deployment anew and switches its schedules on again. Imports Prefect.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import (
    DeploymentScheduleCreate,
    DeploymentUpdate,
    WorkPoolCreate,
    WorkPoolUpdate,
)
from prefect.client.schemas.objects import (
    ConcurrencyLimitStrategy,
    ConcurrencyOptions,
)
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.exceptions import ObjectNotFound
from prefect.utilities.callables import parameter_schema

from blocks.settings import Settings
from deployments.served_flows import (
    BUILDS,
    DEFAULT,
    DEPLOYMENT,
    SERVED,
    WORK_POOL,
    Schedule,
    ServedFlow,
    entry,
)
from deployments.service.worker import FiftyWorker


def register(settings: Settings) -> list[str]:
    """Make the work pool, its queues and all deployments, or bring them up to date.

    What an operator changed stays: a deployment that we registered as it is now is not
    touched; one that is brought up to date keeps whether its schedule is on. The limit of
    the queue `builds` is the operator's too, unless FIFTY_BUILDS says what it is to be.

    Args:
        settings: How many builds at a time, and the host's name.

    Returns:
        What was made or changed, in words; empty when all was as it should be.
    """
    done: list[str] = []
    with get_client(sync_client=True) as client:
        _make_pool(client, done)
        for name in (BUILDS, DEFAULT, settings.host):
            _make_queue(client, name, settings, done)
        for served in SERVED:
            _deploy(client, served, done)
    return done


def _make_pool(client: SyncPrefectClient, done: list[str]) -> None:
    template = FiftyWorker.get_default_base_job_template()
    try:
        pool = client.read_work_pool(WORK_POOL)
    except ObjectNotFound:
        client.create_work_pool(
            WorkPoolCreate(
                name=WORK_POOL,
                type=WORK_POOL,
                description="Fifty Steps: runs start within a second from a process at hand.",
                base_job_template=template,
            )
        )
        done.append(f"work pool {WORK_POOL}")
        return
    # By the names: an operator may have changed a default.
    if _variables(pool.base_job_template) != _variables(template):
        client.update_work_pool(WORK_POOL, WorkPoolUpdate(base_job_template=template))
        done.append(f"work pool {WORK_POOL}: its job variables")


def _variables(template: dict[str, Any]) -> set[str]:
    return set(template.get("variables", {}).get("properties", {}))


def _make_queue(client: SyncPrefectClient, name: str, settings: Settings, done: list[str]) -> None:
    limit = settings.builds if name == BUILDS else None
    told = "builds" in settings.model_fields_set
    try:
        queue = client.read_work_queue_by_name(name, work_pool_name=WORK_POOL)
    except ObjectNotFound:
        client.create_work_queue(
            name,
            description="Builds: so many at a time as its limit says." if limit else None,
            concurrency_limit=limit,
            work_pool_name=WORK_POOL,
        )
        done.append(f"work queue {name}" + (f", {limit} at a time" if limit else ""))
        return
    if limit and told and queue.concurrency_limit != limit:
        client.update_work_queue(queue.id, concurrency_limit=limit)
        done.append(f"work queue {name}: {limit} at a time, by FIFTY_BUILDS")


def _deploy(client: SyncPrefectClient, served: ServedFlow, done: list[str]) -> None:
    """Make a deployment, or bring it up to date where our definition has changed."""
    flow = served.load()
    said = entry(served)
    form = parameter_schema(flow).model_dump(exclude_unset=True)
    fields: dict[str, Any] = {
        "version": said["version"],
        "description": said["description"],
        "tags": said["tags"],
        "entrypoint": said["entrypoint"],
        "enforce_parameter_schema": said["enforce_parameter_schema"],
        "work_pool_name": WORK_POOL,
        "work_queue_name": served.queue,
        "concurrency_limit": 1 if served.alone else None,
        "concurrency_options": ConcurrencyOptions(
            collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW
        )
        if served.alone
        else None,
        "pull_steps": [],
    }
    try:
        there = client.read_deployment_by_name(served.deployment)
    except ObjectNotFound:
        client.create_deployment(
            flow_id=client.create_flow_from_name(served.name),
            name=DEPLOYMENT,
            schedules=[_schedule(served.schedule)] if served.schedule else [],
            parameter_openapi_schema=form,
            **fields,
        )
        done.append(f"deployment {served.deployment}")
        return
    new_form = there.parameter_openapi_schema != form
    if there.version != served.version or there.pull_steps or new_form:
        update = {**fields, "parameter_openapi_schema": form}
        client.update_deployment(there.id, DeploymentUpdate.model_validate(update))
        if there.version != served.version:
            _reschedule(client, there, served.schedule)
        done.append(f"deployment {served.deployment}: brought up to date")


def _reschedule(
    client: SyncPrefectClient, there: DeploymentResponse, wanted: Schedule | None
) -> None:
    """Bring our schedule up to date; whether it is on, and others', stay as they are."""
    ours = [one for one in there.schedules if one.slug == DEPLOYMENT]
    if wanted is None:
        for one in ours:
            client.delete_deployment_schedule(there.id, one.id)
    elif ours:
        new = _schedule(wanted)
        client.update_deployment_schedule(
            there.id, ours[0].id, schedule=new.schedule, parameters=new.parameters
        )
    else:
        client.create_deployment_schedules(there.id, [_schedule(wanted)])


def _schedule(wanted: Schedule) -> DeploymentScheduleCreate:
    when = (
        CronSchedule(cron=wanted.cron, timezone="UTC")
        if wanted.cron
        else IntervalSchedule(interval=timedelta(seconds=wanted.every_s or 0))
    )
    return DeploymentScheduleCreate(
        schedule=when, active=True, parameters=dict(wanted.parameters), slug=DEPLOYMENT
    )
