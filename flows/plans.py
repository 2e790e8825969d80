"""What can be built: each kind of thing with the plan of its steps."""

from __future__ import annotations

from collections.abc import Mapping

from flows.build_image import image_steps
from flows.create_network import network_steps
from flows.create_vm import the_fifty
from tasks.ends import Kind
from tasks.image_build import IMAGE_KIND
from tasks.network_build import NETWORK_KIND
from tasks.run import Plan
from tasks.vm_session import VM_KIND

PLANS: Mapping[str, tuple[Kind, Plan]] = {
    "vm": (VM_KIND, the_fifty),
    "network": (NETWORK_KIND, network_steps),
    "image": (IMAGE_KIND, image_steps),
}
