"""A state store that was made by an earlier version is brought up to date, with what is in it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from blocks.errors import Conflict
from blocks.state import StateStore, migrations
from blocks.state.database import REVISION, Database
from blocks.state.tables import Base
from blocks.state.tenants import token_hash


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    return config


def _upgrade(database: Database, revision: str) -> None:
    config = _config()
    with database.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def test_the_programs_revision_is_the_newest_migration() -> None:
    assert ScriptDirectory.from_config(_config()).get_current_head() == REVISION


def test_the_migrations_make_the_tables_that_the_program_has(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "state.db", "here")
    store.initialize()
    with store.database.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, Base.metadata) == []
    store.database.dispose()


def test_a_store_of_the_first_version_keeps_its_tokens(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store = StateStore(path, "here")
    _upgrade(store.database, "0001")
    store.database.dispose()
    with sqlite3.connect(path) as connection:
        connection.execute(
            "INSERT INTO tenants VALUES ('t', 'default', 1, 120, '2026-01-01 00:00:00.000000')"
        )
        for token in ("one", "two"):
            connection.execute(
                "INSERT INTO tokens VALUES (?, 't', 'admin', ?, '2026-01-01 00:00:00.000000')",
                (token, token_hash(token)),
            )
        connection.execute("INSERT INTO meta VALUES ('site', 'beef')")
    connection.close()
    # Until then a command says what to do, and no more.
    with pytest.raises(Conflict, match="revision 0001") as raised:
        store.database.require_current()
    assert "fifty init" in raised.value.hint

    store.initialize()
    store.database.require_current()
    assert store.site == "beef"
    assert [token.id for token in store.tenants.tokens("t")] == ["one", "two"]
    assert store.tenants.caller_of("default") is None
    caller = store.tenants.caller("two")
    assert caller is not None
    assert (caller.tenant, caller.role, caller.enabled) == ("default", "admin", True)
    # A block's name stands for one token at a time.
    for token in ("one", "two"):
        store.tenants.note_credentials(token, "default")
        known = {each.id: each.credentials for each in store.tenants.tokens("t")}
        assert known == {"one": None, "two": None} | {token: "default"}
    store.tenants.note_credentials("three", "default")
    assert store.tenants.caller_of("default") is not None
    store.database.dispose()


def test_a_file_without_tables_is_no_store(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.touch()
    store = StateStore(path, "here")
    with pytest.raises(Conflict, match="revision none"):
        store.database.require_current()
    store.database.dispose()
