"""Images: versions tell those of one name apart; certificates as a policy; flavors' disk mode

Revision: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

from blocks.state.tables import base

revision = "0004"
down_revision = "0003"

_UNIQUE = {"0003": ("tenant_id", "name"), "0004": ("tenant_id", "name", "version")}
_NEW_FIELDS = (
    *("version", "deactivation", "shared_with", "properties", "encrypted", "passphrase_secret"),
    *("parent_id", "source", "certificate", "report"),
)


def upgrade() -> None:
    _make_anew("0004", sa.Column("version", sa.String(), nullable=False))
    op.execute(
        "INSERT INTO images (id, tenant_id, name, version, status, document, created_at) "
        "SELECT id, tenant_id, name, '1', status, document, created_at FROM images_before"
    )
    op.drop_table("images_before")
    op.create_index("ix_images_name", "images", ["name"])
    op.add_column(
        "tenants",
        sa.Column("certified_images", sa.Boolean(), server_default=sa.false(), nullable=False),
    )
    op.add_column(
        "flavors",
        sa.Column("disk_mode", sa.String(), server_default="chained", nullable=False),
    )


def downgrade() -> None:
    op.drop_column("tenants", "certified_images")
    op.drop_column("flavors", "disk_mode")
    # A disk that is a full copy needs nothing of the program.
    op.execute("UPDATE instances SET flavor = json_remove(flavor, '$.disk_mode')")
    _make_anew("0003")
    # Of several versions the oldest keeps the name; the others are called by their ids. The
    # program of that time knows none of the new fields, and takes none that it does not know.
    op.execute(
        "UPDATE images_before SET name = substr(name, 1, 54) || '.' || substr(id, 1, 8) "
        "WHERE EXISTS (SELECT 1 FROM images_before AS older "
        "WHERE older.tenant_id IS images_before.tenant_id "
        "AND json_extract(older.document, '$.name') = images_before.name "
        "AND (older.created_at, older.id) < (images_before.created_at, images_before.id))"
    )
    fields = ", ".join(f"'$.{name}'" for name in _NEW_FIELDS)
    op.execute(
        "INSERT INTO images (id, tenant_id, name, status, document, created_at) "  # noqa: S608
        "SELECT id, tenant_id, name, status, "
        f"json_remove(json_set(document, '$.name', name), {fields}), created_at "
        "FROM images_before"
    )
    op.drop_table("images_before")
    op.create_index("ix_images_name", "images", ["name"])


def _make_anew(version: str, *columns: sa.Column[str]) -> None:
    """The table under another constraint: SQLite cannot change one.

    No other table refers to this one, so nothing goes with the old one.
    """
    op.drop_index("ix_images_name", "images")
    op.rename_table("images", "images_before")
    op.create_table(
        "images",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=True),
        sa.Column("name", sa.String(), nullable=False),
        *columns,
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.Column("created_at", base.UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint(*_UNIQUE[version]),
    )
