"""Certify an image: boot it, and test it from inside and outside."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from blocks.resources import CertifyRequest
from flows.create_network import create_network
from flows.create_vm import create_vm
from flows.delete_network import delete_network
from flows.delete_vm import delete_vm
from flows.names import run_name
from tasks.certificate_build import SubFlows, certificate_kind
from tasks.certificate_session import certify
from tasks.certification import (
    ask_guest,
    boot_image,
    clear_trial,
    make_key,
    make_network,
    record_certificate,
    use_snapshot,
    use_volume,
    validate_certification,
)
from tasks.run import Runner

CERTIFICATE_KIND = certificate_kind(
    SubFlows(
        create_network=lambda wanted: create_network(wanted, return_state=True),
        create_vm=lambda wanted: create_vm(wanted, return_state=True),
        delete_vm=lambda wanted: delete_vm(wanted, return_state=True),
        delete_network=lambda wanted: delete_network(wanted, return_state=True),
    )
)


@flow(name="certify-image", flow_run_name=run_name, validate_parameters=False)
def certify_image(request: CertifyRequest) -> State[Any]:
    """Certify an image: boot it, and test it from inside and outside.

    A trial VM is made by a run of create-vm in a network of its own, asked, and deleted,
    always. Each test's verdict and evidence are kept with the image, with its checksum.
    Ends Completed, called Certified or NotCertified; Failed where it could not be tried.
    """
    return certify(CERTIFICATE_KIND, request, certify_steps)


def certify_steps(run: Runner) -> None:
    """The steps of a certification, in order."""
    run(validate_certification)
    run(make_key)
    run(make_network)
    run(boot_image)
    run(ask_guest)
    run(use_volume)
    run(use_snapshot)
    run(clear_trial)
    run(record_certificate)
