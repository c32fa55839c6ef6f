"""Row-level security, for databases of Supabase: what signed-in users may read there by themselves.

A project serves its tables to browsers (PostgREST, Realtime), to the roles `anon` and `authenticated`. So no
table of ours is open to these; of three of them users may read what is of their own jobs, by columns that are
listed. Nothing may be written. For the backend, which owns the tables, no policy is looked at.

This is how the database is left after each upgrade, not a step in it: a table that a later migration makes is
closed in the same transaction, whether its author has thought of it or not. Where all is as it should be,
nothing is changed and nothing locked. Without Supabase's roles and its `auth.uid()` nothing is done.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

SINCE = "0010"  # the migration that it came with
PUBLICATION = "supabase_realtime"
ROLES = ("anon", "authenticated")
POLICY = "users_read_their_own"
_PRIVILEGES = "SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER"

# A sub-select is worked out once for each statement, not for each row.
_OWNER = "(SELECT 'user:' || auth.uid()::text)"  # backend/api/dependencies.py: USER
# Who reads images or events reads jobs as well, so the policy of jobs says whose they are.
_OF_A_JOB = "EXISTS (SELECT 1 FROM jobs WHERE jobs.id = {table}.job_id)"
VISIBLE = {
    # Deleted ones are gone, and those that are not accepted yet have a date of deletion.
    "jobs": f"owner = {_OWNER} AND deleted_at IS NULL",
    "image_generations": _OF_A_JOB.format(table="image_generations"),
    "job_events": _OF_A_JOB.format(table="job_events"),
}
# What users may read of them. Not: where webhooks go, whose turn it is, which node has what in hand.
READABLE = {
    "jobs": (
        "id", "pipeline", "status", "input", "metadata", "output", "total", "run", "last_event",
        "error_code", "error_message", "error_retryable", "created_at", "updated_at", "started_at",
        "completed_at", "deadline_at", "cancel_at", "held_at", "expires_at",
    ),
    "image_generations": (
        "id", "job_id", "index", "status", "run", "prompt", "model", "seed", "attempts", "key",
        "content_type", "bytes", "sha256", "width", "height", "made_with", "timings", "thumbnails",
        "blurhash", "color", "error_code", "error_message", "error_retryable", "created_at",
        "started_at", "generated_at", "completed_at",
    ),
    "job_events": ("job_id", "seq", "type", "data", "created_at"),
}  # fmt: skip
FOLLOWED = ("jobs", "image_generations")  # whose changes Realtime tells

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Table:
    """How one of our tables stands there."""

    oid: int
    name: str
    has_row_security: bool
    has_policies: bool
    is_open_to_users: bool  # by our policy
    is_granted: bool  # as a whole, to one of the roles


def secure(connection: Connection, names: Iterable[str]) -> None:
    """Closes these tables, where this is a database of Supabase, but for what users may read and follow.

    What an administrator opens afterwards, by a policy of his own, stays so.
    """
    if not _is_supabase(connection):
        return
    tables = _look_at(connection, names)
    for table in tables:
        if not table.has_row_security:
            _run(connection, f"ALTER TABLE {table.name} ENABLE ROW LEVEL SECURITY")
        if table.is_granted and not table.has_policies:
            _revoke(connection, table.name)
        if table.name in VISIBLE:
            _open_to_users(connection, table)
    _publish(connection, [table.name for table in tables if table.name in FOLLOWED])


def _is_supabase(connection: Connection) -> bool:
    """A schema `auth` alone is not enough: others have one, too."""
    if connection.dialect.name != "postgresql":
        return False
    uid = sa.text(
        "SELECT count(*) FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace"
        " WHERE nspname = 'auth' AND proname = 'uid' AND pronargs = 0"
    )
    roles = sa.text("SELECT count(*) FROM pg_roles WHERE rolname = ANY(:roles)")
    there = connection.scalar(roles, {"roles": list(ROLES)}) == len(ROLES)
    return there and bool(connection.scalar(uid))


def _look_at(connection: Connection, names: Iterable[str]) -> list[Table]:
    query = sa.text("""
        SELECT c.oid, c.relname, c.relrowsecurity,
            EXISTS (SELECT FROM pg_policy WHERE polrelid = c.oid),
            EXISTS (SELECT FROM pg_policy WHERE polrelid = c.oid AND polname = :policy),
            EXISTS (SELECT FROM unnest(CAST(:roles AS text[])) AS role
                    WHERE has_table_privilege(role, c.oid, :privileges))
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = current_schema() AND c.relkind = 'r' AND c.relname = ANY(:names)
        ORDER BY c.relname
    """)
    given = {"policy": POLICY, "roles": list(ROLES), "privileges": _PRIVILEGES, "names": list(names)}
    return [Table(*row) for row in connection.execute(query, given)]


def _open_to_users(connection: Connection, table: Table) -> None:
    if not table.is_open_to_users:
        _revoke(connection, table.name)
        policy = f"CREATE POLICY {POLICY} ON {table.name} FOR SELECT TO authenticated"
        _run(connection, f"{policy} USING ({VISIBLE[table.name]})")
    if columns := _not_readable_yet(connection, table):
        listed = ", ".join(f'"{column}"' for column in columns)
        _run(connection, f"GRANT SELECT ({listed}) ON {table.name} TO authenticated")


def _not_readable_yet(connection: Connection, table: Table) -> list[str]:
    """Of the columns that are there: code may know of more than this revision has."""
    query = sa.text("""
        SELECT attname FROM pg_attribute
        WHERE attrelid = :oid AND attnum > 0 AND NOT attisdropped AND attname = ANY(:columns)
            AND NOT has_column_privilege('authenticated', attrelid, attnum, 'SELECT')
        ORDER BY attnum
    """)
    given = {"oid": table.oid, "columns": list(READABLE[table.name])}
    return list(connection.scalars(query, given))


def _revoke(connection: Connection, table: str) -> None:
    """Also of single columns. What `service_role` may do stays: it is a server's, and passes all policies."""
    _run(connection, f"REVOKE ALL ON {table} FROM {', '.join(ROLES)}")


def _publish(connection: Connection, tables: Iterable[str]) -> None:
    """Has Realtime tell the changes of these, where there is Realtime.

    Their replica identity stays the primary key: the old values of a row that changes would double the log
    that each change writes, and Realtime shows no more than the key of them where there are policies.
    """
    missing = [table for table in tables if table not in _published(connection)]
    owned = sa.text(
        "SELECT pg_has_role(current_user, pubowner, 'USAGE') FROM pg_publication WHERE pubname = :name"
    )
    may = connection.scalar(owned, {"name": PUBLICATION})  # None: there is no such publication
    for table in missing:
        if may:
            _run(connection, f"ALTER PUBLICATION {PUBLICATION} ADD TABLE {table}")
        elif may is not None:
            log.warning("not the owner of the publication %s: add the table %s to it", PUBLICATION, table)


def _published(connection: Connection) -> set[str]:
    query = sa.text(
        "SELECT tablename FROM pg_publication_tables WHERE pubname = :name AND schemaname = current_schema()"
    )
    return set(connection.scalars(query, {"name": PUBLICATION}))


def _run(connection: Connection, statement: str) -> None:
    """All names in it are ours."""
    log.info("%s", statement)
    connection.exec_driver_sql(statement)
