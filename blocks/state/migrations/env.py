"""Alembic's environment: runs on the connection that `upgrade` hands over."""

from alembic import context

from blocks.state.tables import Base

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    render_as_batch=True,
    user_module_prefix="base.",
)
with context.begin_transaction():
    context.run_migrations()
connection.commit()
