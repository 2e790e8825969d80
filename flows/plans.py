"""What can be built: each kind of thing with the plan of its steps."""

from __future__ import annotations

from collections.abc import Mapping

from flows.build_image import image_steps
from flows.capture_image import capture_steps
from flows.certify_image import CERTIFICATE_KIND, certify_steps
from flows.create_network import network_steps
from flows.create_snapshot import snapshot_steps
from flows.create_vm import the_fifty
from flows.edit_image import edit_steps
from flows.import_image import import_steps
from flows.install_image import install_steps
from flows.revert_snapshot import revert_steps
from tasks.ends import Kind
from tasks.image_build import IMAGE_KIND
from tasks.network_build import NETWORK_KIND
from tasks.run import Plan, Runner
from tasks.snapshot_revert import REVERT_KIND
from tasks.snapshot_take import SNAPSHOT_KIND
from tasks.vm_session import VM_KIND

#: The ways to an image besides a recipe, told by a field that only their requests have.
_WAYS: Mapping[str, Plan] = {
    "source": import_steps,
    "image": edit_steps,
    "medium": install_steps,
    "vm": capture_steps,
}


def steps_to_image(run: Runner) -> None:
    """The steps of an image's build, whichever way it was asked for."""
    form = run.subject.store.builds.get(run.subject.build_id).request
    ways = [plan for field, plan in _WAYS.items() if field in form]
    (ways[0] if ways else image_steps)(run)


PLANS: Mapping[str, tuple[Kind, Plan]] = {
    "vm": (VM_KIND, the_fifty),
    "network": (NETWORK_KIND, network_steps),
    "image": (IMAGE_KIND, steps_to_image),
    "snapshot": (SNAPSHOT_KIND, snapshot_steps),
    "revert": (REVERT_KIND, revert_steps),
    "certificate": (CERTIFICATE_KIND, certify_steps),
}
