"""Alembic migrations of the state store."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config

from blocks.state.database import Database


def upgrade(database: Database) -> None:
    """Bring a database to the newest revision; an empty one gets all tables."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    with database.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
