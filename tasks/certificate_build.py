"""The certification of an image: a trial VM's life, and everything that its steps can ask for.

It is a build like others, so that whatever stops it, its undo removes the trial.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from prefect.client.schemas.objects import State

from blocks.errors import NeedsAttention, NotFound
from blocks.resources import Flavor, Image
from blocks.resources.image_trials import CertifyRequest
from blocks.state import Build, StateStore
from blocks.world import World
from tasks.ends import Kind
from tasks.reading import afresh
from tasks.run import lease
from tasks.step import Catalogue
from tasks.subject import BuildSubject
from tasks.vm_build import VmBuild

T = TypeVar("T")

#: A flow that is given its request.
SubFlow = Callable[[dict[str, Any]], State[Any]]
#: The trial VM's request id begins so; the certification's id and generation follow.
_REQUEST = "certify-image"


@dataclass(frozen=True)
class SubFlows:
    """The flows that make and remove the trial: those that everybody uses."""

    create_network: SubFlow
    create_vm: SubFlow
    delete_vm: SubFlow
    delete_network: SubFlow


class Certification(BuildSubject):
    """One certification.

    Args:
        world: The connections of this host.
        build: The certification's record.
        flows: What makes and removes the trial.
    """

    def __init__(self, world: World, build: Build, flows: SubFlows) -> None:
        super().__init__(world, build)
        self.flows = flows

    def settle(self, state: str, fault: dict[str, Any] | None) -> str:
        """Say how the certification stands (see `Buildable`)."""
        del fault
        return f"{self.build.name}: {self.plan.get('summary', f'its certification is {state}')}"

    @property
    def subject(self) -> Certification:
        """The certification itself, for what must be read after the step has changed something."""
        return afresh(self)

    @property
    def trial(self) -> Trial:
        """The trial VM, and its network."""
        return Trial(self)

    @cached_property
    def certify_request(self) -> CertifyRequest:
        """The request, valid (from step 62 on)."""
        return CertifyRequest.model_validate(self.build.request)

    @property
    def image(self) -> Image:
        """The image (from step 62 on)."""
        return self.store.images.get(self.plan["image"])

    @property
    def flavor(self) -> Flavor:
        """The trial VM's flavor (from step 62 on)."""
        return Flavor.model_validate(self.plan["flavor"])

    @property
    def directory(self) -> Path:
        """The certification's own directory: the trial's key."""
        return self.world.directories.path(self.build_id)


class Trial:
    """The trial VM and its network, found by what the certification recorded before."""

    def __init__(self, subject: Certification) -> None:
        self._subject = subject
        self._store = subject.store
        self.name = f"certify-{subject.build_id[:8]}-{subject.generation}"
        self.request_id = f"{_REQUEST}/{subject.build_id}/{subject.generation}"

    @property
    def vm(self) -> Build | None:
        """The trial VM's build; None before there is one."""
        credentials = self._subject.build.credentials
        return self._store.builds.of_request("vm", credentials, self.request_id)

    @property
    def network(self) -> Build | None:
        """The trial network's build; None before there is one."""
        try:
            return self._store.builds.find(
                "network", self.name, self._subject.build.tenant_id or ""
            )
        except NotFound:
            return None

    def run(self, flow: SubFlow, request: dict[str, Any]) -> State[Any]:
        """Run a flow apart from the step that it is run in: what it works on is another build."""
        wanted = {**request, "credentials": self._subject.build.credentials}
        return contextvars.copy_context().run(flow, wanted)

    def under_lease(self, build: Build, work: Callable[[], T]) -> T:
        """Do something with the trial VM while nobody else works on it."""

        def body() -> T:
            with lease(VmBuild(self._subject.world, build), "certify"):
                return work()

        return contextvars.copy_context().run(body)

    def delete_vm(self) -> None:
        """Delete the trial VM, with its volumes; already gone is fine.

        Raises:
            NeedsAttention: It could not be deleted.
        """
        self._delete(self._subject.flows.delete_vm, self.vm)

    def delete_network(self) -> None:
        """Delete the trial's network; already gone is fine.

        Raises:
            NeedsAttention: It could not be deleted.
        """
        self._delete(self._subject.flows.delete_network, self.network)

    def _delete(self, flow: SubFlow, build: Build | None) -> None:
        if build is None or build.state in ("refused", "deleted"):
            return
        state = self.run(flow, {"name": build.id})
        if not state.is_completed():
            raise NeedsAttention(
                f"the trial's {build.catalogue} {build.name} could not be deleted: {state.message}",
                hint=f"the run of delete-{build.catalogue} beside this one tells why",
            )


def is_trial(store: StateStore, build: Build, image: Image) -> bool:
    """Whether a VM's build is the trial of an image's certification that is under way now.

    Args:
        store: The state store.
        build: The VM's.
        image: The image that it wants.
    """
    word, _slash, rest = build.request_id.partition("/")
    if word != _REQUEST:
        return False
    try:
        certification = store.builds.get(rest.partition("/")[0])
    except NotFound:
        return False
    return (
        certification.catalogue == CERTIFICATE.name
        and certification.state == "building"
        and certification.credentials == build.credentials
        and certification.plan.get("image") == image.id
        and store.leases.held(certification.id) is not None
    )


CERTIFICATE = Catalogue("certificate", Certification)


def certificate_kind(flows: SubFlows) -> Kind:
    """The kind of build that a certification is; its word and verb are the command's."""
    return Kind(
        "image",
        CERTIFICATE,
        lambda world, build: Certification(world, build, flows),
        undo_again="certify",
    )
