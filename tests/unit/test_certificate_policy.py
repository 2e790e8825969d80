"""What a tenant's policy on certificates lets in, and the trial VM that it lets in for one."""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from blocks.errors import Denied
from blocks.images.certification import TESTS, Outcome, Verdict, certify
from blocks.resources import Image, ImageFormat
from blocks.state import Build, Caller
from blocks.state.tables.base import now
from tasks.certificate_build import CERTIFICATE
from tasks.certificate_policy import require_certificate
from tests.unit.cli_store import Filled


@pytest.fixture(name="filled")
def _filled(tmp_path: Path) -> Filled:
    return Filled(tmp_path)


@pytest.fixture(name="image")
def _image(filled: Filled) -> Image:
    image = Image(
        id=str(uuid.uuid4()),
        tenant_id=filled.tenant,
        name="certain",
        format=ImageFormat.QCOW2,
        sha256="1" * 64,
        size_bytes=1,
        virtual_size_bytes=512,
        path="/nowhere",
    )
    filled.store.images.put(image)
    return image


def caller(filled: Filled) -> Caller:
    token = filled.store.tenants.issue_token(filled.tenant, "member")
    found = filled.store.tenants.caller(token)
    assert found is not None
    return found


def opened(filled: Filled, catalogue: str, request_id: str, credentials: str = "mine") -> Build:
    build, _new = filled.store.builds.open(
        build_id=str(uuid.uuid4()),
        catalogue=catalogue,
        name="x",
        credentials=credentials,
        request={},
        request_id=request_id,
        flow_run_id=None,
        policy="rollback",
    )
    return build


def lets_in(filled: Filled, build: Build, image: Image) -> bool:
    try:
        require_certificate(build, caller(filled), image, filled.store)
    except Denied as error:
        assert "fifty image certify certain" in error.hint
        return False
    return True


def with_certificate(filled: Filled, image: Image, verdict: Verdict) -> Image:
    tests = [Outcome(test=test, title=title, verdict=verdict) for test, title in TESTS.items()]
    document = certify(image, now(), "tiny", {}, tests).model_dump(mode="json")
    return filled.store.images.change(image.id, certificate=document)


def test_only_where_the_tenant_wants_it(filled: Filled, image: Image) -> None:
    vm = opened(filled, "vm", "any")
    assert lets_in(filled, vm, image)
    filled.store.tenants.require_certificates(filled.tenant, on=True)
    assert caller(filled).certified_images
    assert not lets_in(filled, vm, image)
    assert not lets_in(filled, vm, with_certificate(filled, image, Verdict.FAIL))
    certified = with_certificate(filled, image, Verdict.PASS)
    assert lets_in(filled, vm, certified)
    assert not lets_in(filled, vm, certified.model_copy(update={"sha256": "2" * 64}))
    filled.store.tenants.require_certificates(filled.tenant, on=False)
    assert lets_in(filled, vm, image)


def test_the_trial_of_a_certification_that_is_under_way_is_let_in(
    filled: Filled, image: Image
) -> None:
    store = filled.store
    store.tenants.require_certificates(filled.tenant, on=True)
    certification = opened(filled, CERTIFICATE.name, "certification")
    store.builds.note(certification.id, image=image.id)
    token = store.leases.acquire(certification.id, "create")
    request_id = f"certify-image/{certification.id}/1"
    trial = opened(filled, "vm", request_id)
    assert lets_in(filled, trial, image)
    # Not another image, not others' request, not what only says so, not afterwards.
    assert not lets_in(filled, trial, image.model_copy(update={"id": "another"}))
    assert not lets_in(filled, opened(filled, "vm", request_id, "others"), image)
    other = opened(filled, "vm", "plain")
    store.builds.note(other.id, image=image.id)
    store.leases.acquire(other.id, "create")
    for forged in (f"certify-image/{other.id}/1", "certify-image/", "certify-image"):
        assert not lets_in(filled, other.model_copy(update={"request_id": forged}), image)
    store.leases.release(certification.id, token)
    assert not lets_in(filled, trial, image)
    store.leases.acquire(certification.id, "create")
    store.builds.update(certification.id, state="complete")
    assert not lets_in(filled, trial, image)


def test_who_was_noted_before_there_was_a_policy_is_not_bound_by_it(filled: Filled) -> None:
    """A build that is resumed has noted its caller as an older version did."""
    known = caller(filled)
    noted = {k: v for k, v in vars(replace(known)).items() if k != "certified_images"}
    assert Caller(**noted) == known
