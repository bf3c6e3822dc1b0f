"""Alembic's entry: runs the migrations on the connection that broker.registry.migration hands over."""

from alembic import context

from broker.registry.partial_indexes import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
