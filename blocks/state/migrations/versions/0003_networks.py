"""Networks: drivers, VLANs, routes, floating IPs, port security, the hosts' underlay

Revision: 0003
Revises: 0002
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

#: Columns with what holds for the rows that are there already. Plain ALTER TABLE: a batch
#: would make the table anew, and what refers to it would go with the old one.
_COLUMNS: tuple[tuple[str, sa.Column[Any]], ...] = (
    ("networks", sa.Column("driver", sa.String(), nullable=False, server_default="linuxbridge")),
    ("networks", sa.Column("physical_interface", sa.String(), nullable=True)),
    ("networks", sa.Column("port_security", sa.Boolean(), nullable=False, server_default="1")),
    ("subnets", sa.Column("host_routes", sa.JSON(), nullable=False, server_default="[]")),
    ("ports", sa.Column("port_security", sa.Boolean(), nullable=False, server_default="1")),
    ("routers", sa.Column("routes", sa.JSON(), nullable=False, server_default="[]")),
    ("hosts", sa.Column("underlay_ip", sa.String(), nullable=True)),
)


def upgrade() -> None:
    for table, column in _COLUMNS:
        op.add_column(table, column)
    op.create_table(
        "floating_ips",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("port_id", sa.String(), nullable=True),
        sa.Column("fixed_address", sa.BigInteger(), nullable=True),
        sa.Column("router_id", sa.String(), nullable=True),
        sa.Column("former_router_id", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["id"], ["ports.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["port_id"], ["ports.id"], ondelete="SET NULL"),
        sa.ForeignKeyConstraint(["router_id"], ["routers.id"], ondelete="SET NULL"),
        sa.ForeignKeyConstraint(["former_router_id"], ["routers.id"], ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("port_id", "fixed_address"),
    )
    op.create_index("ix_floating_ips_port_id", "floating_ips", ["port_id"])
    op.create_index("ix_floating_ips_router_id", "floating_ips", ["router_id"])


def downgrade() -> None:
    op.drop_table("floating_ips")
    for table, column in reversed(_COLUMNS):
        op.drop_column(table, column.name)
