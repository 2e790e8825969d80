"""Credentials of tokens: which Prefect block holds a token

Revision: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    with op.batch_alter_table("tokens", schema=None) as batch_op:
        batch_op.add_column(sa.Column("credentials", sa.String(), nullable=True))
        batch_op.create_unique_constraint("uq_tokens_credentials", ["credentials"])


def downgrade() -> None:
    with op.batch_alter_table("tokens", schema=None) as batch_op:
        batch_op.drop_constraint("uq_tokens_credentials", type_="unique")
        batch_op.drop_column("credentials")
