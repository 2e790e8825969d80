"""A user's own job: a VM for one command, its output as an artifact, and the VM gone again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import FlowRun, State
from prefect.context import FlowRunContext
from prefect.states import Completed, Failed
from pydantic import BaseModel

from blocks.errors import FiftyError, InvalidRequest, NeedsAttention, NotFound
from blocks.guest import Execution, execute, login_command
from blocks.marks import dhcp_namespace
from blocks.resources import Instance, JobRequest
from blocks.settings import settings
from blocks.state import Caller, StateStore
from blocks.world import World, open_world
from tasks.access import identify
from tasks.ends import message_of
from tasks.policy import check_policy
from tasks.run import lease
from tasks.session import refused
from tasks.step import error_dict
from tasks.upkeep import asked

#: The flows `create-vm` and `delete-vm`, each given its request.
SubFlow = Callable[[dict[str, Any]], State[Any]]

#: The key pair that `fifty init` makes.
_KEY_PAIR = "default"
#: The request ids of jobs' VMs: by them a later run knows what a killed one has left.
_REQUEST = re.compile(r"(run-in-vm/[0-9a-f-]{36})/\d+")
_SSH_OPTIONS = ("BatchMode=yes", "ConnectTimeout=30", "ServerAliveInterval=15")


@dataclass
class Job:
    """One run of a job; a lease on its id says that it is alive."""

    store: StateStore
    wanted: JobRequest
    caller: Caller
    run: FlowRun
    generation: int = 1
    lease_token: str | None = None

    @property
    def build_id(self) -> str:
        """What the lease is on."""
        return f"run-in-vm/{self.run.id}"

    @property
    def request_id(self) -> str:
        """The request id of this attempt's VM: a run that is retried makes a new one."""
        return f"{self.build_id}/{self.run.run_count}"

    @property
    def vm(self) -> str:
        """What this run's VM is called."""
        return f"{self.wanted.name}-{self.run.id.hex[:8]}"


def run_job(request: BaseModel | Mapping[str, Any], create: SubFlow, delete: SubFlow) -> State[Any]:
    """Make a VM, run the command in it, keep what it said, and delete the VM, come what may.

    Args:
        request: As the flow got it: not validated.
        create: The flow that creates a VM.
        delete: The flow that deletes one.

    Returns:
        Completed where the command ended with 0 and the VM is gone.
    """
    try:
        wanted = asked(JobRequest, request)
        world = open_world(settings())
        caller = identify(world.store, wanted.credentials)
        check_policy(caller, "vm:run")
        key, private = _key_of(world.store, caller, wanted)
        job = Job(world.store, wanted, caller, _this_run())
        with lease(job, "run-in-vm") as job.lease_token:
            _delete_leftovers(job, delete)
            # The VM is deleted on every way out, that of a signal too.
            with ExitStack() as ends:
                ends.callback(lambda: _delete_vm(job, delete))
                created = create(_vm_request(job, key))
                if not created.is_completed():
                    return Failed(name="NoVm", message=created.message)
                done = _run_command(world, job, private)
            _publish(job, done)
            return _ended(job, done)
    except NeedsAttention as error:
        return Failed(name="NeedsAttention", message=message_of(error_dict(error)))
    except FiftyError as error:
        return refused(error)


def _this_run() -> FlowRun:
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        raise InvalidRequest("a job is a flow run of a Prefect server")
    return context.flow_run


def _key_of(store: StateStore, caller: Caller, wanted: JobRequest) -> tuple[str, str]:
    """The name of the key pair that opens the VM, and the file of its private half.

    Raises:
        NotFound: There is none whose private half is a file here.
    """
    asked_for = wanted.key or _KEY_PAIR
    for pair, public, private in store.keys.list(caller.tenant_id):
        same = public.split()[:2] == asked_for.split()[:2]
        if private is not None and (pair == asked_for or same):
            return pair, private
    raise NotFound(
        f"key: the private half of {asked_for[:63]!r} is not known on this host",
        hint="`fifty key create NAME` makes a pair with both halves",
    )


def _vm_request(job: Job, key: str) -> dict[str, Any]:
    form = job.wanted.model_dump(mode="json", exclude={"command", "timeout_s"}, exclude_unset=True)
    # A killed job has nobody who waits for its VM.
    own = {"name": job.vm, "key": key, "request_id": job.request_id, "on_interrupt": "rollback"}
    return {**form, **own}


def _run_command(world: World, job: Job, private: str) -> Execution:
    store = world.store
    instance = store.instances.find(job.vm, job.caller.tenant_id)
    port = store.ports.of_device(instance.id)[0]
    options = [word for option in _SSH_OPTIONS for word in ("-o", option)]
    command = job.wanted.command
    line = command if isinstance(command, str) else shlex.join(command)
    get_run_logger().info("running in %s: %s", job.vm, line)
    words = login_command(
        dhcp_namespace(port.network_id),
        store.images.get(instance.image_id).login_user,
        port.addresses[0].address,
        world.directories.path(instance.id) / "known_hosts",
        ["-T", "-i", private, *options],
    )
    # After "--" nothing is an option of ssh, whatever the command begins with.
    return execute([*words, "--", line], job.wanted.timeout_s)


def _delete_leftovers(job: Job, delete: SubFlow) -> None:
    """Delete the VMs of jobs that were killed: this run's earlier attempts, and others."""
    for instance in job.store.instances.list(job.caller.tenant_id):
        if _is_leftover(job, instance):
            get_run_logger().warning("%s was left by a job that was killed", instance.name)
            _require(delete({"name": instance.id, "credentials": job.wanted.credentials}))


def _is_leftover(job: Job, instance: Instance) -> bool:
    match = _REQUEST.fullmatch(instance.request_id)
    if match is None:
        return False
    return match[1] == job.build_id or job.store.leases.held(match[1]) is None


def _delete_vm(job: Job, delete: SubFlow) -> None:
    try:
        instance = job.store.instances.find(job.vm, job.caller.tenant_id)
    except NotFound:
        return  # it was refused before anything was recorded
    _require(delete({"name": instance.id, "credentials": job.wanted.credentials}))


def _require(deleted: State[Any]) -> None:
    if not deleted.is_completed():
        raise NeedsAttention(
            f"the job's VM could not be deleted: {deleted.message}",
            hint="the run of delete-vm beside this one tells why",
        )


def _publish(job: Job, done: Execution) -> None:
    how = "given up" if done.exit_code is None else f"exit code {done.exit_code}"
    create_markdown_artifact(
        key=f"{job.wanted.name}-output",
        markdown="\n".join(
            [f"# {job.vm}: {how}", "", f"{done.duration_s:.1f} s", "", *_fenced(done.output)]
        ),
        description=f"{job.vm}: {how}",
    )


def _fenced(output: str) -> list[str]:
    """Text that a guest said as a block of code, which ends where the text does."""
    shown = "".join(
        c if c in "\n\t" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in output
    )
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", shown)), default=0))
    return [f"{fence}text", shown.rstrip("\n"), fence]


def _ended(job: Job, done: Execution) -> State[Any]:
    last = done.output.strip().splitlines()[-1:] or ["it said nothing"]
    if done.exit_code is None:
        words = f"the command was given up after {job.wanted.timeout_s} s: {last[0]}"
        return Failed(name="TimedOut", message=words)
    if done.exit_code:
        return Failed(
            name="CommandFailed",
            message=f"the command ended with {done.exit_code}: {last[0]}",
        )
    return Completed(message=f"the command ended with 0 after {done.duration_s:.1f} s")
