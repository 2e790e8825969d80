"""The forms that the Prefect UI draws of the flows' parameters, and what they let pass."""

from __future__ import annotations

from typing import Any

import pytest
from prefect.utilities.callables import parameter_schema
from pydantic import ValidationError

from blocks.resources import EditRequest, InjectedFile, JobRequest, VmRequest
from deployments.served_flows import SERVED, ServedFlow
from tasks.draft import describe_all

MICRO: dict[str, Any] = {"name": "web", "image": "micro", "networks": ["lab"]}
WITH_FORMS = [served for served in SERVED if served.name != "audit"]


def form(served: ServedFlow) -> dict[str, Any]:
    """A flow's parameter and all the models in it, as the deployment has them."""
    found: dict[str, Any] = parameter_schema(served.load()).model_dump(exclude_unset=True)
    assert list(found["properties"]) == ["request"]
    assert "$ref" in found["properties"]["request"]
    return found


@pytest.mark.parametrize("served", WITH_FORMS, ids=lambda served: served.name)
def test_every_field_says_what_it_is_and_where_it_stands(served: ServedFlow) -> None:
    for model in form(served)["definitions"].values():
        fields = model["properties"]
        assert sorted(field["position"] for field in fields.values()) == list(range(len(fields)))
        assert "parameter" not in model["description"]
        for name, field in fields.items():
            assert field["title"] and field["title"] != name, name
            assert field.get("description") or "enum" in field, name


@pytest.mark.parametrize("served", WITH_FORMS, ids=lambda served: served.name)
def test_a_field_that_may_be_left_out_is_an_empty_one(served: ServedFlow) -> None:
    for model in form(served)["definitions"].values():
        for name, field in model["properties"].items():
            assert {"type": "null"} not in field.get("anyOf", []), name
            assert field.get("default", "") is not None, name


def test_what_a_form_does_not_offer_is_still_understood() -> None:
    assert VmRequest.model_validate({**MICRO, "floating": True}).floating
    assert VmRequest.model_validate({**MICRO, "key": None, "fixed_ip": None}).key is None
    with pytest.raises(ValidationError, match="fixed_ip"):
        VmRequest.model_validate({**MICRO, "fixed_ip": "10.0.0.999"})


def test_a_jobs_command_comes_right_after_its_name() -> None:
    fields = JobRequest.model_json_schema()["properties"]
    in_order = sorted(fields, key=lambda name: int(fields[name]["position"]))
    assert in_order[:4] == ["name", "command", "timeout_s", "image"]


def test_a_files_mode_is_octal_in_a_text_and_plain_bits_as_a_number() -> None:
    def mode(value: object) -> int:
        given = {"path": "/etc/motd", "content_base64": "", "mode": value}
        return InjectedFile.model_validate(given).mode

    assert [mode("0600"), mode("755"), mode("01777"), mode(0o600)] == [0o600, 0o755, 0o1777, 0o600]
    for wrong in ("", "0o644", "rw-r--r--", "648", "-1", "17777", 0o10000, -1, None):
        with pytest.raises(ValidationError):
            mode(wrong)
    assert InjectedFile.model_json_schema()["properties"]["mode"]["default"] == "0644"


def test_what_is_wrong_with_several_fields_is_told_without_a_name() -> None:
    [line] = describe_all(EditRequest, {"image": "a", "name": "b"})
    assert line == "asks for no change: give inject, remove or generalise"
