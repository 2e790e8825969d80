"""User data from a Prefect Secret block: what is taken, what is refused, and nothing quoted."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from prefect.blocks.system import Secret

from blocks.errors import FiftyError, InvalidRequest, NotFound
from blocks.resources import Instance, InstanceStatus, VmRequest
from blocks.state.tables.base import now
from blocks.user_data import USER_DATA_LIMIT
from deployments import defaults
from tasks.draft import Draft
from tasks.metadata import documents, read_secret
from tasks.request_checks import wrong_secret
from tests.prefect_api import api

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("prefect_server")]

CANARY = "s3cr3t-Tr1angle"
FORM = {"name": "hello", "image": "micro", "networks": ["lab"]}


def _save(name: str, value: Any) -> None:  # noqa: ANN401 - any JSON
    Secret(value=value).save(name, overwrite=True)


def _documents(request: VmRequest) -> dict[str, bytes]:
    time = now()
    instance = Instance(
        id=str(uuid.uuid4()),
        tenant_id="t",
        name="hello",
        status=InstanceStatus.BUILD,
        flavor=defaults.FLAVORS[0],
        image_id="i",
        image_name="micro",
        request_id="r",
        created_at=time,
        updated_at=time,
    )
    return dict(documents(instance, request, None, [], b"seed"))


def test_the_guest_is_given_what_the_block_holds_now() -> None:
    request = VmRequest.model_validate({**FORM, "user_data_secret": "for-guests"})
    # Text that happens to be JSON is given as it is.
    for text in (f"#cloud-config\npassword: {CANARY}\n", f'{{"a": "{CANARY}"}}', "7"):
        _save("for-guests", text)
        assert _documents(request)["openstack/latest/user_data"] == text.encode()
    found = api("GET", "/block_types/slug/secret/block_documents/name/for-guests").json()
    body = {"block_schema_id": found["block_schema_id"], "data": {"value": "#!/bin/sh\n"}}
    assert api("PATCH", f"/block_documents/{found['id']}", json=body).status_code == 204
    assert _documents(request)["openstack/latest/user_data"] == b"#!/bin/sh\n"
    # The request holds the block's name alone.
    assert "bin/sh" not in request.model_dump_json()


@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [
        (None, NotFound, "there is no Prefect Secret block"),
        ({"password": CANARY}, InvalidRequest, "holds no text"),
        (CANARY + "x" * USER_DATA_LIMIT, InvalidRequest, "over the limit"),
        (f"#cloud-config\n{CANARY}: [b\n", InvalidRequest, "is not YAML"),
        (f"#cloud-config\n- {CANARY}\n", InvalidRequest, "must be a YAML mapping"),
    ],
)
def test_what_is_no_user_data_is_refused_and_not_quoted(
    value: object, kind: type[FiftyError], words: str
) -> None:
    name = "nobody-made-it"
    if value is not None:
        name = "unfit"
        _save(name, value)
    with pytest.raises(kind, match=words) as raised:
        read_secret(name)
    assert CANARY not in str(raised.value.as_dict())
    found = wrong_secret(Draft({**FORM, "user_data_secret": name}))
    assert isinstance(found, kind)
    assert found.message.startswith("user_data_secret: ")
    assert CANARY not in str(found.as_dict())


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (
            {"user_data": f"#!/bin/sh\n# {CANARY}", "user_data_secret": "for-guests"},
            "user_data_secret: is given beside user_data; only one of them can be",
        ),
        # A secret in place of the block's name is not repeated either.
        ({"user_data_secret": CANARY}, "user_data_secret: "),
        ({"user_data": f"#cloud-config\n{CANARY}: [b\n"}, "user_data: is not YAML"),
    ],
)
def test_the_form_of_the_fields(fields: dict[str, str], line: str) -> None:
    [error] = Draft({**FORM, **fields}).errors
    assert error.startswith(line)
    assert CANARY not in error
