"""The catalogue: images by name and version, shared, withdrawn; and a store from before that."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import text

from blocks.errors import Conflict, NotFound
from blocks.resources import DiskMode, Flavor, Image, ImageFormat, Instance, InstanceStatus
from blocks.state import StateStore, migrations
from blocks.state.images import retired_name
from blocks.state.tables.base import now
from tests.unit.cli_store import Filled


@pytest.fixture(name="filled")
def _filled(tmp_path: Path) -> Filled:
    return Filled(tmp_path)


def put(filled: Filled, name: str, version: str = "1", **fields: Any) -> Image:  # noqa: ANN401
    image = Image(
        id=str(uuid.uuid4()),
        tenant_id=filled.tenant,
        name=name,
        version=version,
        format=ImageFormat.QCOW2,
        sha256="1" * 64,
        size_bytes=1,
        virtual_size_bytes=512,
        path="/nowhere",
        **fields,
    )
    filled.store.images.put(image)
    return image


def test_who_names_no_version_gets_the_newest_active_one(filled: Filled) -> None:
    images = filled.store.images
    old, new = put(filled, "debian", "12"), put(filled, "debian", "13")
    assert images.find(filled.tenant, "debian").id == new.id
    assert images.find(filled.tenant, "debian:12").id == old.id
    assert (old.reference, put(filled, "plain").reference) == ("debian:12", "plain")
    assert images.find(filled.tenant, "plain:1").name == "plain"
    images.change(new.id, status="deactivated")
    assert images.find(filled.tenant, "debian").id == old.id
    assert images.find(filled.tenant, "debian:13").status == "deactivated"
    with pytest.raises(NotFound, match="debian:12"):
        images.find(filled.tenant, "debian:14")
    with pytest.raises(Conflict, match="debian:12"):
        put(filled, "debian", "12")


def test_the_own_one_goes_before_what_others_let_one_see(filled: Filled) -> None:
    images = filled.store.images
    theirs = put(filled, "debian", visibility="public")
    other = filled.add_tenant("other", "member")
    assert images.find(other, "debian").id == theirs.id
    own = theirs.model_copy(update={"id": str(uuid.uuid4()), "tenant_id": other})
    images.put(own)
    assert images.find(other, "debian").id == own.id
    assert images.find(filled.tenant, "debian").id == theirs.id


def test_shared_with_one_it_is_seen_by_one(filled: Filled) -> None:
    images = filled.store.images
    image = put(filled, "mine")
    one, two = filled.add_tenant("one", "member"), filled.add_tenant("two", "member")

    def seen_by() -> list[str]:
        everyone = {"owner": filled.tenant, "one": one, "two": two}
        return [
            name
            for name, tenant in everyone.items()
            if image.id in {each.id for each in images.list(tenant)}
        ]

    assert seen_by() == ["owner"]
    images.change(image.id, visibility="shared", shared_with=(one,))
    assert seen_by() == ["owner", "one"]
    # What it was shared with before counts only while it is shared.
    images.change(image.id, visibility="private")
    assert seen_by() == ["owner"]
    images.change(image.id, visibility="public")
    assert seen_by() == ["owner", "one", "two"]


def test_what_was_withdrawn_is_not_cleaned_away_as_what_was_replaced_is(filled: Filled) -> None:
    images = filled.store.images
    withdrawn, replaced = put(filled, "withdrawn"), put(filled, "replaced")
    told = {"by": "default (admin)", "why": "a hole in it", "at": now()}
    changed = images.change(withdrawn.id, status="deactivated", deactivation=told)
    assert changed.deactivation is not None
    assert changed.deactivation.why == "a hole in it"
    again = replaced.model_copy(update={"id": str(uuid.uuid4())})
    images.put(again, replaces=replaced.id)
    assert not images.forget_unused(withdrawn.id)
    assert images.forget_unused(replaced.id)
    assert images.get(withdrawn.id).status == "deactivated"


def test_a_wrong_change_changes_nothing(filled: Filled) -> None:
    images = filled.store.images
    image = put(filled, "mine")
    for fields in ({"properties": {"A": "b"}}, {"min_ram_mib": "x"}, {"no_such_field": 1}):
        with pytest.raises(ValueError, match="validation error"):
            images.change(image.id, **fields)
    assert images.get(image.id) == image
    with pytest.raises(NotFound):
        images.change("none", os="linux")


def test_a_store_from_before_versions(tmp_path: Path) -> None:
    """Upgraded, its images are there with version 1; and back again, without the new fields."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    store = StateStore(tmp_path / "state.db", "here")

    def bring_to(revision: str, how: Any = command.upgrade) -> None:  # noqa: ANN401
        with store.database.connect() as connection:
            config.attributes["connection"] = connection
            how(config, revision)

    bring_to("0003")
    document = (
        '{"id": "i", "tenant_id": null, "name": "micro", "format": "raw", "path": "/p", '
        f'"sha256": "{"0" * 64}", "size_bytes": 1, "virtual_size_bytes": 512}}'
    )
    with store.database.connect() as connection:
        connection.execute(
            text(
                "INSERT INTO images (id, tenant_id, name, status, document, created_at) "
                "VALUES ('i', NULL, 'micro', 'active', :document, '2026-01-01 00:00:00.000000')"
            ),
            {"document": document},
        )
        connection.execute(text("INSERT INTO flavors VALUES ('tiny', 1, 256, 1, '{}')"))
        connection.commit()
    bring_to("head")
    assert store.flavors.get("tiny").disk_mode is DiskMode.CHAINED
    flat = Flavor(name="flat", vcpus=1, ram_mib=256, disk_gib=1, disk_mode=DiskMode.FLAT)
    store.flavors.put(flat)
    assert store.flavors.get("flat") == flat
    tenant = store.tenants.create("some")
    store.instances.record(
        Instance(
            id="v",
            tenant_id=tenant,
            name="vm",
            status=InstanceStatus.ACTIVE,
            flavor=flat,
            image_id="i",
            image_name="micro",
            request_id="r",
            created_at=now(),
            updated_at=now(),
        )
    )
    image = store.images.get("i")
    assert (image.version, image.reference) == ("1", "micro")
    second = image.model_copy(update={"id": "j" * 8, "version": "2", "source": "/x"})
    store.images.put(second)
    bring_to("0003", command.downgrade)
    with store.database.connect() as connection:
        rows = connection.execute(text("SELECT name, document FROM images ORDER BY id")).all()
        flavors = connection.execute(
            text("SELECT name, vcpus, ram_mib, disk_gib FROM flavors ORDER BY name")
        ).all()
        columns = {row[1] for row in connection.execute(text("PRAGMA table_info(flavors)"))}
        embedded = connection.execute(text("SELECT flavor FROM instances")).scalar_one()
    assert [tuple(row) for row in flavors] == [("flat", 1, 256, 1), ("tiny", 1, 256, 1)]
    assert "disk_mode" not in columns
    assert json.loads(embedded) == flat.model_dump(mode="json", exclude={"disk_mode"})
    assert [row[0] for row in rows] == ["micro", retired_name("micro", "j" * 8)]
    assert "source" not in rows[1][1] and "version" not in rows[1][1]
    store.database.dispose()
