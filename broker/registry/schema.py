"""The schema that this version needs, by the name of its newest migration."""

#: Known here too, so that a worker can check it at the start without loading Alembic.
HEAD = "0006"
