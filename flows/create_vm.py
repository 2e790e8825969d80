"""Create a virtual machine, in the fifty steps OpenStack takes."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from blocks.resources import VmRequest
from flows.names import run_name
from tasks.run import Runner
from tasks.session import create
from tasks.steps_01_11_api import (
    authenticate,
    authorize,
    limit_rate,
    publish_request,
    record_instance,
    reserve_quota,
    resolve_flavor,
    resolve_image,
    resolve_key_and_groups,
    resolve_networks,
    validate_request,
)
from tasks.steps_12_16_scheduler import (
    collect_hosts,
    dispatch,
    filter_hosts,
    select_host,
    weigh_hosts,
)
from tasks.steps_17_23_port import (
    begin_networking,
    claim_resources,
    create_ports,
    generate_macs,
    get_network_info,
    get_security_groups,
    obtain_dhcp,
)
from tasks.steps_24_30_disk import (
    build_config_drive,
    create_disk,
    fetch_base,
    hand_over,
    inject_files,
    prepare_directory,
    resize_disk,
)
from tasks.steps_31_38_network import (
    apply_security_groups,
    connect_outside,
    plug_taps,
    prove_ports,
    realize_routers,
    realize_segments,
    serve_dhcp,
    serve_metadata,
)
from tasks.steps_39_40_volumes import connect_volumes, create_volumes
from tasks.steps_41_47_hypervisor import (
    compose_domain,
    define_domain,
    let_run,
    set_controls,
    start_paused,
    wait_for_plug,
    watch_boot,
)
from tasks.steps_48_50_guest import activate, see_guest, wait_for_guest
from tasks.vm_session import VM_KIND, on_selected_hosts


@flow(name="create-vm", flow_run_name=run_name, validate_parameters=False)
def create_vm(request: VmRequest) -> State[Any]:
    """Create a virtual machine: fifty steps, each one visible, retryable and undoable.

    Give it a name, an image and a network; the rest has defaults. How it ends:

    - **Completed**: the VM is ACTIVE.
    - **Refused**: nothing was changed; the state's message tells all that is wrong.
    - **RolledBack**: a step failed, and everything was undone. **Kept**: it was left as it is.
      Retry goes on at the step that failed, or builds anew what was undone.
    - **Cancelled**: Cancel undoes what was made.
    - **NeedsAttention**: an undo failed; the summary tells what is left.
    """
    return create(VM_KIND, request, the_fifty)


def the_fifty(run: Runner) -> None:
    """The fifty steps, in DESIGN's order."""
    # The API: 1-11
    run(authenticate)
    run(limit_rate)
    run(authorize)
    run.gather(
        validate_request,
        resolve_flavor,
        resolve_image,
        resolve_networks,
        resolve_key_and_groups,
    )
    run(reserve_quota)
    run(record_instance)
    run(publish_request)
    # The scheduler: 12-16
    run(collect_hosts)
    run(filter_hosts)
    run(weigh_hosts)
    run(select_host)
    on_selected_hosts(run, dispatch.number, on_the_host)


def on_the_host(run: Runner) -> None:
    """Steps 16 to 50, on the host that was selected."""
    run(dispatch)
    # The compute manager: 17-23
    run(claim_resources)
    run(begin_networking)
    run(generate_macs)
    run(obtain_dhcp)
    run(get_network_info)
    run(get_security_groups)
    run(create_ports)
    # The disk, the network and the volumes do not need one another: 24-40
    run.concurrently(
        (
            hand_over,
            prepare_directory,
            fetch_base,
            create_disk,
            resize_disk,
            build_config_drive,
            inject_files,
        ),
        (
            realize_segments,
            serve_dhcp,
            realize_routers,
            connect_outside,
            serve_metadata,
            plug_taps,
            apply_security_groups,
            prove_ports,
        ),
        (
            create_volumes,
            connect_volumes,
        ),
    )
    # The hypervisor: 41-47
    run(compose_domain)
    run(define_domain)
    run(set_controls)
    run(start_paused)
    run(wait_for_plug)
    run(let_run)
    run(watch_boot)
    # The guest: 48-50
    run(see_guest)
    run(wait_for_guest)
    run(activate)
