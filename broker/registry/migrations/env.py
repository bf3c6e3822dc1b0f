"""Alembic's entry: runs the migrations on the connection that broker.registry.migration hands over."""

from alembic import context

from broker.registry.partial_indexes import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # Where a migration was cut short, those before it are done.
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
