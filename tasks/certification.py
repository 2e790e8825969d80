"""The certification of an image: its steps, from the trial VM to the certificate."""

from __future__ import annotations

import base64
import importlib.metadata
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from prefect import get_run_logger
from prefect.artifacts import create_table_artifact

from blocks.changes import record
from blocks.errors import Conflict, HostFault, InvalidRequest, Unsupported
from blocks.guest.key_files import make_key_pair
from blocks.images.certification import TESTS, Outcome, certify, not_run
from blocks.images.certification.probe import SCRIPT_RAN
from blocks.resources import Flavor, Image
from blocks.resources.image_trials import CertifyRequest
from blocks.state import Build, StateStore
from blocks.state.tables.base import now
from blocks.world import World
from tasks.access import admitted
from tasks.certificate_build import CERTIFICATE, Certification, Trial
from tasks.certificate_trials import ask, try_snapshot, try_volume
from tasks.draft import describe_all
from tasks.image_origin import own_image, require_active

step = CERTIFICATE.stage("I")

_GIB = 1024**3
_CIDR = "198.18.0.0/28"
_KEY = "trial"
#: Where step 30 puts its file: no tmpfs, and nothing that an image has.
INJECTED = "/etc/fifty-certificate"
#: From here on the guest runs: what fails is looked at, and is the image's if it is the guest's.
_LET_RUN = 46
_GUESTS_FAULTS = ("GuestFault", "HostKeyChanged")


@step(61, "Validate the certification request")
def validate_certification(build: Build, form: dict[str, Any], store: StateStore) -> str:
    """Look at the whole request: the caller, the image, and a flavor that fits.

    OpenStack has no certification: its image guide lists what to test by hand.
    """
    caller = admitted(build, store, "certificate:create")
    wrong = describe_all(CertifyRequest, form)
    if wrong:
        raise InvalidRequest("the certification request is wrong", details=wrong)
    request = CertifyRequest.model_validate(form)
    # Others would be told what it says.
    image = own_image(store, caller, request.name)
    require_active(image)
    if image.os == "windows":
        raise Unsupported("what a guest is asked here no Windows understands")
    flavors = store.flavors.list()
    if request.flavor is not None:
        flavors = [store.flavors.get(request.flavor)]
    flavor = _fitting(image, flavors)
    store.builds.update(build.id, name=image.reference)
    store.builds.note(
        build.id,
        image=image.id,
        flavor=flavor.model_dump(mode="json"),
        token=secrets.token_hex(16),
    )
    return f"{image.reference} as {flavor.name}"


def _fitting(image: Image, flavors: Sequence[Flavor]) -> Flavor:
    """The smallest flavor that an image fits, with room to grow where there is one."""
    fitting = [
        one
        for one in flavors
        if one.disk_gib * _GIB >= image.virtual_size_bytes
        and one.disk_gib >= image.min_disk_gib
        and one.ram_mib >= image.min_ram_mib
    ]
    if not fitting:
        raise InvalidRequest(
            f"{image.reference} does not fit any flavor that there is to try it with",
            hint="`--flavor` names a larger one",
        )

    def order(one: Flavor) -> tuple[bool, int, int, int]:
        grows = one.disk_gib * _GIB > image.virtual_size_bytes
        return not grows, one.disk_gib, one.ram_mib, one.vcpus

    return min(fitting, key=order)


def remove_key(build: Build, world: World) -> None:
    """Remove the trial's key."""
    world.directories.remove(build.id)


@step(62, "Make the trial's key", undo=remove_key)
def make_key(build: Build, world: World) -> str:
    """Make a key pair that nobody else has, for this trial alone."""
    directory = world.directories.prepare(build.id)
    new = not (directory / _KEY).exists()
    public, private = make_key_pair(directory, _KEY)
    if new:
        record("Made the trial's key pair", ["ssh-keygen", "-t", "ed25519", "-f", str(private)])
    return public


def remove_network(trial: Trial) -> None:
    """Delete the trial's network."""
    trial.delete_network()


@step(63, "Make the trial's network", undo=remove_network)
def make_network(trial: Trial, subject: Certification) -> str:
    """Make a network for the trial alone, by the flow create-network: nobody else is in it."""
    state = trial.run(subject.flows.create_network, {"name": trial.name, "cidr": _CIDR})
    network = trial.network
    if network is None or network.state != "complete":
        raise Conflict(f"the trial's network could not be made: {_first(state.message)}")
    return network.id


def remove_vm(trial: Trial) -> None:
    """Delete the trial VM, with its volumes."""
    trial.delete_vm()


@step(64, "Boot the image", undo=remove_vm)
def boot_image(
    trial: Trial, subject: Certification, image: Image, directory: Path, store: StateStore
) -> str:
    """Make a VM of it, by the flow create-vm, as everybody would.

    A guest that runs and does not do what it should is kept: it is looked at.
    """
    plan = subject.plan
    form: dict[str, Any] = {
        "name": trial.name,
        "image": f"{image.name}:{image.version}",
        "flavor": subject.flavor.name,
        "networks": [trial.name],
        "key": (directory / f"{_KEY}.pub").read_text().strip(),
        "user_data": f"#!/bin/sh\necho {plan['token']} > {SCRIPT_RAN}\n",
        "request_id": trial.request_id,
        "on_failure": "keep",
        "on_interrupt": "rollback",
    }
    if image.injectable and not image.encrypted:
        content = base64.b64encode(f"{plan['token']}\n".encode()).decode()
        form["inject"] = [{"path": INJECTED, "content_base64": content}]
    state = trial.run(subject.flows.create_vm, form)
    vm = trial.vm
    if vm is None or vm.state not in ("complete", "kept"):
        raise HostFault(f"the trial VM could not be made: {_first(state.message)}")
    if store.instances.get(vm.id).image_id != image.id:
        raise Conflict(f"{form['image']} is another image for this tenant")
    fault = vm.fault or {}
    if vm.state == "kept":
        guests = fault.get("error") in _GUESTS_FAULTS and (fault.get("step") or 0) > _LET_RUN
        if not guests:
            raise HostFault(f"the trial VM could not be made: {_first(state.message)}")
        get_run_logger().warning("the guest is looked at as it is: %s", fault["message"])
    return vm.id


@step(65, "Ask the guest")
def ask_guest(subject: Certification, store: StateStore) -> list[dict[str, Any]]:
    """Log in, and ask all that is decided from inside, in one go; read the console.

    Login, injected file, cloud-init, root file system, host name, time zone, /etc/fstab,
    /tmp, console: the seed's tests of an image.
    """
    asked = ask(subject, PurePosixPath(INJECTED))
    outcomes = _told(asked.outcomes)
    store.builds.note(
        subject.build_id,
        asked=outcomes,
        reached=asked.reached,
        at=asked.at.isoformat(),
        guest=dict(asked.versions),
    )
    return outcomes


@step(66, "Try a volume")
def use_volume(subject: Certification, store: StateStore) -> list[dict[str, Any]]:
    """Plug a volume in, have the guest format and write it, unplug it, and read it again."""
    return _tried(subject, store, "volume", lambda: try_volume(subject))


@step(67, "Try a snapshot")
def use_snapshot(subject: Certification, store: StateStore) -> list[dict[str, Any]]:
    """Take a snapshot, change a file, revert, and see the file as it was."""
    return _tried(subject, store, "snapshot", lambda: try_snapshot(subject))


def _tried(
    subject: Certification, store: StateStore, test: str, trial: Callable[[], Outcome]
) -> list[dict[str, Any]]:
    """The outcome of a trial that needs a login, noted with the certification."""
    reached = subject.plan["reached"]
    outcomes = [trial()] if reached else not_run("nobody can log in, so it cannot be tried", [test])
    told = _told(outcomes)
    store.builds.note(subject.build_id, **{test: told})
    return told


@step(68, "Clear the trial away")
def clear_trial(build: Build, trial: Trial, world: World) -> None:
    """Delete the VM with its volumes, its network, and its key."""
    trial.delete_vm()
    trial.delete_network()
    world.directories.remove(build.id)


@step(69, "Record the certificate")
def record_certificate(
    subject: Certification, image: Image, world: World, store: StateStore
) -> dict[str, Any]:
    """Keep with the image what each test told, and tell it as a table.

    Of a file that was replaced meanwhile it says nothing: it holds the checksum.
    """
    plan = subject.plan
    found = [*plan["asked"], *plan["volume"], *plan["snapshot"]]
    certificate = certify(
        image,
        now(),
        subject.flavor.name,
        {**_versions(world), **plan["guest"]},
        [Outcome.model_validate(one) for one in found],
    )
    document = certificate.model_dump(mode="json")
    store.images.change(image.id, certificate=document)
    store.builds.note(subject.build_id, summary=certificate.summary)
    record(f"Certified {image.reference}: {certificate.summary}", f"fifty image show {image.name}")
    create_table_artifact(
        key="image-certificate",
        table=[
            {
                "test": one.title,
                "verdict": str(one.verdict),
                "evidence": "; ".join(one.evidence),
                "what to do": one.hint,
            }
            for one in certificate.tests
        ],
        description=(
            f"**{image.reference}** {'has' if certificate.passed else 'has not'} passed: "
            f"{certificate.summary}. Booted with the flavor {subject.flavor.name}; this holds "
            f"for the file with the SHA-256 {image.sha256}."
        ),
    )
    return document


def _versions(world: World) -> dict[str, str]:
    known = world.hypervisor.features()
    return {
        "fifty-steps": importlib.metadata.version("fifty-steps"),
        "qemu": str(known["qemu"]),
        "libvirt": str(known["libvirt"]),
        "accelerator": str(known["accelerator"]),
    }


def _told(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    for one in outcomes:
        get_run_logger().info("%s: %s: %s", one.verdict, TESTS[one.test], "; ".join(one.evidence))
    return [one.model_dump(mode="json") for one in outcomes]


def _first(message: str | None) -> str:
    return (message or "no reason is known").splitlines()[0]
