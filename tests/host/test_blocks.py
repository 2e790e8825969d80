"""The Prefect blocks: Prefect's own suite, and that an edit in the UI holds for the next run."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from prefect import flow
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites.blocks import BlockStandardTestSuite

from blocks.credentials.block import FiftyCredentials
from blocks.errors import Denied
from blocks.hypervisor.block import LibvirtHostBlock
from blocks.loading import load_block
from blocks.scheduler_block import SchedulerBlock
from blocks.settings import Settings
from blocks.state import StateStore
from blocks.world import BLOCK_NAME, open_world
from deployments import daemons
from deployments.setup import initialize
from tasks.access import identify
from tests import sessions
from tests.prefect_api import api

pytestmark = pytest.mark.host

KINDS = (FiftyCredentials, LibvirtHostBlock, SchedulerBlock)


@pytest.mark.parametrize("block", KINDS)
@pytest.mark.usefixtures("prefect_server")
class TestStandard(BlockStandardTestSuite):
    """Prefect's suite for blocks."""

    @pytest.fixture
    def block(self, request: pytest.FixtureRequest) -> type[Block]:
        """One of ours."""
        return request.param  # type: ignore[no-any-return]


@pytest.fixture(name="home", scope="module")
def _home(session_directory: Path, prefect_server: str) -> Iterator[Settings]:
    home = session_directory / "blocks"
    daemons.prepare_home(home)
    here = Settings(home=home, credentials="blocks-admin")
    site = initialize(here, prefect_server)
    sessions.note_site(session_directory, site.site)
    yield here


def _document(kind: type[Block], name: str) -> dict[str, Any]:
    slug = kind.get_block_type_slug()
    found = api("GET", f"/block_types/slug/{slug}/block_documents/name/{name}")
    assert found.status_code == 200
    document: dict[str, Any] = found.json()
    return document


def _edit(kind: type[Block], name: str, **data: object) -> None:
    """As the UI's form does."""
    document = _document(kind, name)
    body = {"block_schema_id": document["block_schema_id"], "data": data}
    assert api("PATCH", f"/block_documents/{document['id']}", json=body).status_code == 204


def test_init_registers_what_the_ui_shows(home: Settings, prefect_server: str) -> None:
    del home
    for kind in KINDS:
        told = api("GET", f"/block_types/slug/{kind.get_block_type_slug()}").json()
        assert told["description"] == kind.get_description()
        assert f"import {kind.__name__}" in told["code_example"]
        # The picture is the server's own: looking at the UI calls nobody else.
        assert told["logo_url"].startswith(prefect_server.removesuffix("/api") + "/")
        picture = requests.get(told["logo_url"], timeout=30)
        width, height = struct.unpack(">II", picture.content[16:24])
        assert picture.content.startswith(b"\x89PNG")
        assert width == height
        assert 45 < width < 1000
        schemas = api(
            "POST",
            "/block_schemas/filter",
            json={"block_schemas": {"block_type_id": {"any_": [told["id"]]}}},
        ).json()
        fields = schemas[0]["fields"]["properties"]
        assert all(field["description"].endswith(".") for field in fields.values())
        assert schemas[0]["fields"].get("secret_fields", []) == (
            ["token"] if kind is FiftyCredentials else []
        )


def test_a_token_is_not_shown(home: Settings) -> None:
    assert set(_document(FiftyCredentials, home.credentials)["data"]["token"]) == {"*"}


def test_an_edited_block_is_used_by_the_next_run(home: Settings) -> None:
    """In one process: what `fifty serve` runs its flows in has everything loaded."""
    seen: list[tuple[float, str, float]] = []

    @flow
    def look() -> None:
        host = open_world(home).host_config
        seen.append((load_block(SchedulerBlock, BLOCK_NAME).ram, host.zone, host.ram_ratio))

    before = {kind: _document(kind, BLOCK_NAME)["data"] for kind in KINDS[1:]}
    try:
        look()
        _edit(SchedulerBlock, BLOCK_NAME, ram=-7.5)
        _edit(LibvirtHostBlock, BLOCK_NAME, zone="attic", ram_ratio=3.25)
        look()
    finally:
        for kind, data in before.items():
            _edit(kind, BLOCK_NAME, **data)
    look()
    usual = (SchedulerBlock().ram, LibvirtHostBlock().zone, LibvirtHostBlock().ram_ratio)
    assert seen == [usual, (-7.5, "attic", 3.25), usual]


def test_edited_credentials_stand_for_another_tenant_at_once(home: Settings) -> None:
    store = StateStore(home.database, home.host)
    other = store.tenants.create("other")
    mine = store.tenants.issue_token(store.tenants.id_of("default"), "member")
    theirs = store.tenants.issue_token(other, "reader")
    FiftyCredentials.model_validate({"token": mine}).save("moving")
    assert (identify(store, "moving").tenant, identify(store, "moving").role) == (
        "default",
        "member",
    )
    _edit(FiftyCredentials, "moving", token=theirs)
    # What the quick commands know is what was last seen; a request brings it up to date.
    known = store.tenants.caller_of("moving")
    assert known is not None
    assert known.tenant == "default"
    assert identify(store, "moving").tenant == "other"
    known = store.tenants.caller_of("moving")
    assert known is not None
    assert known.tenant == "other"
    _edit(FiftyCredentials, "moving", token="made up")
    with pytest.raises(Denied, match="not known"):
        identify(store, "moving")
    # Revoked in the store: what the store knows of the block is gone with it.
    [token] = store.tenants.tokens(other)
    store.tenants.revoke(token.id)
    assert store.tenants.caller_of("moving") is None
