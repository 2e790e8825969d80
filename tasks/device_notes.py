"""What a VM is made of now, kept with its build: for its next start, and for its deletion."""

from __future__ import annotations

from blocks.state import Build
from blocks.world import World
from tasks.port_bindings import binding_of
from tasks.vm_build import VmBuild


def note_devices(world: World, build: Build) -> None:
    """Keep with a VM's build what its ports and volumes are; quota and host know what it holds."""
    store, subject = world.store, VmBuild(world, build)
    instance = subject.instance
    ports, volumes = store.ports.of_device(build.id), store.volumes.of(build.id)
    amounts = {
        "ports": len(ports),
        "volumes": len(volumes),
        "gigabytes": sum(volume.size_gib for volume in volumes),
    }
    for resource, amount in amounts.items():
        store.quota.resize(instance.tenant_id, build.id, resource, amount)
    store.hosts.resize(build.id, instance.flavor.disk_gib + amounts["gigabytes"])
    bindings = [binding_of(store, port, build.name) for port in ports]
    place, image = subject.directory, subject.image
    spec = world.hypervisor.guest_spec(instance, bindings, volumes, place, image)
    spec = spec.with_root_layer(subject.top_layer)
    store.builds.note(
        build.id,
        ports=[port.model_dump(mode="json") for port in ports],
        volumes=[volume.model_dump(mode="json") for volume in volumes],
        spec=spec.model_dump(mode="json"),
        xml=world.hypervisor.compose(spec),
    )
