"""The builds of VMs, as sessions work on them."""

from __future__ import annotations

from tasks.ends import Kind
from tasks.run import Plan, Runner
from tasks.vm_build import VM, VmBuild

VM_KIND = Kind("vm", VM, VmBuild, undo_again="rollback")


def on_selected_hosts(run: Runner, first: int, plan: Plan) -> None:
    """Run a plan on the selected host and, where that is at fault, on its alternates."""
    store, build_id = run.subject.store, run.subject.build_id

    def choose(host: str) -> None:
        store.builds.note(build_id, host=host)

    run.on_hosts(store.builds.get(build_id).plan["hosts"], first, choose, plan)
