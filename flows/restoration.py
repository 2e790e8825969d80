"""What is done again on a host that has lost it: by steps of those that made it."""

from __future__ import annotations

from collections.abc import Mapping

from tasks.network_restore import lost_network, restore_attached
from tasks.network_steps import realize_segment, serve_subnet
from tasks.restoring import Restoration
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
from tasks.steps_39_40_volumes import connect_volumes
from tasks.steps_41_47_hypervisor import (
    define_domain,
    let_run,
    set_controls,
    start_paused,
    wait_for_plug,
    watch_boot,
)
from tasks.steps_48_50_guest import activate, see_guest, wait_for_guest
from tasks.vm_restore import lost_vm, vm_runs

#: A VM, from its network to its guest; its disks are there.
VM_AGAIN = Restoration(
    steps=(
        realize_segments,
        serve_dhcp,
        realize_routers,
        connect_outside,
        serve_metadata,
        plug_taps,
        apply_security_groups,
        prove_ports,
        connect_volumes,
        define_domain,
        set_controls,
        start_paused,
        wait_for_plug,
        let_run,
        watch_boot,
        see_guest,
        wait_for_guest,
        activate,
    ),
    lost=lost_vm,
    runs=vm_runs,
    then=lambda _vm: None,
    failed="kept",
)

#: A network, and then its routers and its guests' ports as they are recorded.
NETWORK_AGAIN = Restoration(
    steps=(realize_segment, serve_subnet),
    lost=lost_network,
    runs=lambda network: not lost_network(network),
    then=restore_attached,
    failed="restoring",
)

RESTORATIONS: Mapping[str, Restoration] = {"network": NETWORK_AGAIN, "vm": VM_AGAIN}
