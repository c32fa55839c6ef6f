"""Runs the migrations on a connection that is given, or on FANFARE_DATABASE_URL from the command line."""

from alembic import context
from sqlalchemy.engine import Connection

from backend.db import Base, Database
from backend.jobs import models  # noqa: F401 - declares the tables
from backend.migrations import row_security
from backend.products import models as product_models  # noqa: F401 - likewise
from backend.settings import get_settings

VERSION_TABLE = "alembic_version"


def run(connection: Connection) -> None:
    """All of it in the transaction that the caller has begun."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=True,
        transactional_ddl=True,
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()
        if row_security.SINCE in _applied():
            row_security.secure(connection, [*Base.metadata.tables, VERSION_TABLE])


def _applied() -> set[str]:
    heads = context.get_context().get_current_heads()
    return {step.revision for step in context.script.iterate_revisions(heads, "base")}


given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    with Database(get_settings().database_url).engine.connect() as own, own.begin():
        run(own)
