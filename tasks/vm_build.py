"""The build of a VM: everything that the fifty steps can ask for, by name.

Each attribute is read from the state store when a step asks for it, once a step: steps find
what they need by recorded id, and a resumed run finds the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from blocks.hypervisor import GuestSpec, InstanceDirectories, LibvirtHost
from blocks.resources import (
    Image,
    Instance,
    InstanceStatus,
    Network,
    Port,
    PortBinding,
    PortKind,
    Router,
    TaskState,
    VmRequest,
    Volume,
)
from blocks.state import Build
from blocks.state.figures import FIGURES, durations
from blocks.volumes import VolumePool
from blocks.world import World
from tasks.draft import Draft
from tasks.events import announce
from tasks.metadata import documents
from tasks.port_bindings import binding_of, protected
from tasks.reading import afresh, read_once
from tasks.step import Catalogue
from tasks.subject import BuildSubject


class VmBuild(BuildSubject):
    """One VM's build."""

    def __init__(self, world: World, build: Build) -> None:
        super().__init__(world, build)
        announce(world.store)

    @property
    def subject(self) -> VmBuild:
        """The build itself, for what must be read after the step has changed something."""
        return afresh(self)

    # What the engine asks for.

    def settle(self, state: str, fault: dict[str, Any] | None) -> str:
        """Make the instance say how its build stands (see `Buildable`)."""
        instances = self.store.instances
        name = self.build.name
        if state == "complete":
            entries = self.store.journal.entries(self.build_id, self.generation)
            self.store.builds.note(self.build_id, **{FIGURES: durations(entries)})
        if state in ("complete", "restored"):
            # Step 50 said so; but where the run was killed after it, BUILD was said since.
            instances.set_status(self.build_id, InstanceStatus.ACTIVE)
            return f"{name} is ACTIVE at {', '.join(self.addresses)}"
        if state == "refused":
            return f"{name} was refused"
        status = {
            "building": InstanceStatus.BUILD,
            "restoring": InstanceStatus.SHUTOFF,
            "kept": InstanceStatus.ERROR,
            "undone": InstanceStatus.ERROR,
            "needs_attention": InstanceStatus.NEEDS_ATTENTION,
            "deleting": InstanceStatus.DELETING,
            "deleted": InstanceStatus.DELETED,
        }[state]
        task = {"deleting": TaskState.DELETING, "restoring": TaskState.POWERING_ON}.get(state)
        if instances.set_status(self.build_id, status, task_state=task, fault=fault):
            instances.update(self.build_id, flow_run_id=self.build.flow_run_id)
        return f"{name} is {status}"

    @property
    def addresses(self) -> list[str]:
        """The instance's addresses, in its ports' order."""
        return [str(held.address) for port in self.ports for held in port.addresses]

    # The parts of the world.

    @property
    def hypervisor(self) -> LibvirtHost:
        """This host's libvirt."""
        return self.world.hypervisor

    @property
    def directories(self) -> InstanceDirectories:
        """The instances' directories."""
        return self.world.directories

    @property
    def pool(self) -> VolumePool:
        """The data volumes' files."""
        return self.world.pool

    # What is built.

    @property
    def draft(self) -> Draft:
        """The request field by field, as far as it is valid (steps 4 to 8)."""
        return Draft(self.form)

    @cached_property
    def request(self) -> VmRequest:
        """The request, valid (from step 8 on)."""
        return VmRequest.model_validate(self.build.request)

    @read_once
    def instance(self) -> Instance:
        """The instance (from step 10 on)."""
        return self.store.instances.get(self.build_id)

    @read_once
    def image(self) -> Image:
        """The instance's image."""
        return self.store.images.get(self.instance.image_id)

    @read_once
    def ports(self) -> list[Port]:
        """The instance's ports in order; after their record is gone, as it last was.

        The snapshot is what lets a tap be removed that an earlier rollback could not.
        """
        ports = self.store.ports.of_device(self.build_id)
        if ports:
            return ports
        return [Port.model_validate(port) for port in self.plan.get("ports", [])]

    @read_once
    def networks(self) -> list[Network]:
        """The network of each port, in the ports' order."""
        return [self.store.networks.get(port.network_id) for port in self.ports]

    @read_once
    def bindings(self) -> list[PortBinding]:
        """Each port with all that this host must know to realize it."""
        name = self.instance.name
        return [binding_of(self.store, port, name) for port in self.ports]

    @read_once
    def dhcp_ports(self) -> list[Port]:
        """The DHCP port of each port's network, in the ports' order."""
        found = []
        for network in self.networks:
            [port] = self.store.ports.list(kind=PortKind.DHCP, network_id=network.id)
            found.append(port)
        return found

    @read_once
    def peers(self) -> list[PortBinding]:
        """Ports of other VMs on this host whose rules let in, or out to, these ports' groups.

        Those that have their rules already (step 37 begun, and not undone): a port that
        has not is given the right ones when its turn comes.
        """
        mine = {group for port in self.ports for group in port.security_groups}
        mine |= set(self.plan.get("groups", []))
        naming = self.store.groups.ports_that_name(mine, host=self.store.host)
        return protected(self.store, (port for port in naming if port.device_id != self.build_id))

    @read_once
    def routers(self) -> list[Router]:
        """The routers of the instance's networks, each once."""
        found = (self.store.routers.of_network(network.id) for network in self.networks)
        return list({router.id: router for router in found if router}.values())

    @read_once
    def key(self) -> tuple[str, str] | None:
        """The key pair's name and public key: the tenant's, or the one in the request."""
        key = self.request.key
        if key is None:
            return None
        if " " in key:
            return "request", key
        return key, self.store.keys.get(self.instance.tenant_id, key)[0]

    @property
    def metadata(self) -> Mapping[str, bytes]:
        """What the guest is told about itself, by path."""
        seed = bytes.fromhex(self.plan["seed"])
        return documents(self.instance, self.request, self.key, self.bindings, seed)

    @read_once
    def volumes(self) -> list[Volume]:
        """The instance's data volumes in order; after their record is gone, as it last was.

        The snapshot is what lets a file be deleted that an earlier rollback could not.
        """
        volumes = self.store.volumes.of(self.build_id)
        if volumes:
            return volumes
        return [Volume.model_validate(volume) for volume in self.plan.get("volumes", [])]

    # Its files.

    @property
    def directory(self) -> Path:
        """The instance's directory."""
        return self.directories.path(self.build_id)

    @property
    def disk(self) -> Path:
        """The root disk."""
        return self.directory / "disk.qcow2"

    @property
    def top_layer(self) -> Path:
        """The layer of the root disk that the guest writes; snapshots put others on it."""
        return self.spec.disks[0].path

    @property
    def config_drive(self) -> Path:
        """The config drive's ISO."""
        return self.directory / "config.iso"

    @property
    def console_log(self) -> Path:
        """The serial console's log."""
        return self.directory / "console.log"

    @property
    def base(self) -> Path:
        """The image's base file in this host's cache."""
        return self.images.cached(self.image)

    @property
    def spec(self) -> GuestSpec:
        """The guest specification that step 24 recorded."""
        return GuestSpec.model_validate(self.plan["spec"])


VM = Catalogue("vm", VmBuild)
