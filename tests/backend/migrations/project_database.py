"""A Postgres as a Supabase project has it: its roles, what it grants them by default, `auth.uid()`, Realtime.

As there, whoever migrates is no superuser; and each table that he makes in `public` is open to everybody who
comes through the project's API, until row-level security closes it.
"""

import json
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

from tests.services import PostgresServer

_ROLES = """
DO $$ BEGIN
    PERFORM pg_advisory_xact_lock(1);  -- roles are the server's, and tests may run side by side
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'authenticator') THEN
        CREATE ROLE anon NOLOGIN NOINHERIT;
        CREATE ROLE authenticated NOLOGIN NOINHERIT;
        CREATE ROLE service_role NOLOGIN NOINHERIT BYPASSRLS;
        CREATE ROLE authenticator LOGIN NOINHERIT;
        CREATE ROLE project_owner LOGIN;
        GRANT anon, authenticated, service_role TO authenticator;
    END IF;
END $$
"""
_AUTH = """
CREATE SCHEMA auth;
GRANT USAGE ON SCHEMA auth TO anon, authenticated, service_role, project_owner;
CREATE FUNCTION auth.jwt() RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT coalesce(
        nullif(current_setting('request.jwt.claim', true), ''),
        nullif(current_setting('request.jwt.claims', true), '')
    )::jsonb
$$;
CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS $$
    SELECT coalesce(
        nullif(current_setting('request.jwt.claim.sub', true), ''),
        nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
    )::uuid
$$;
ALTER SCHEMA public OWNER TO project_owner;
GRANT USAGE ON SCHEMA public TO anon, authenticated, service_role;
ALTER DEFAULT PRIVILEGES FOR ROLE project_owner IN SCHEMA public
    GRANT ALL ON TABLES TO anon, authenticated, service_role;
"""


class ProjectDatabase:
    """One project's database, and its doors."""

    def __init__(self, server: PostgresServer, name: str) -> None:
        self._super = server.url(name).replace("+psycopg", "")
        self._password = secrets.token_hex(16)
        for role in ("authenticator", "project_owner"):
            change = sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), self._password)
            self.administer(change)
        self.url = self._as("project_owner").replace("postgresql:", "postgresql+psycopg:")

    def administer(self, *statements: str | sql.Composed) -> None:
        """By a superuser."""
        with psycopg.connect(self._super, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)  # type: ignore[arg-type,unused-ignore]

    def own(self, statement: str) -> list[Any]:
        """By who owns the tables, and migrates."""
        return _ask(self._as("project_owner"), [], statement)

    def by_user(self, user: UUID | None, statement: str) -> list[Any]:
        """As PostgREST lets a signed-in user ask; None: one who isn't signed in."""
        role = "anon" if user is None else "authenticated"
        claims = {"role": role} | ({"sub": str(user)} if user else {})
        settings = [f"SET LOCAL ROLE {role}", f"SET LOCAL request.jwt.claims TO '{json.dumps(claims)}'"]
        return _ask(self._as("authenticator"), settings, statement)

    def by_server(self, statement: str) -> list[Any]:
        """With the project's service key."""
        return _ask(self._as("authenticator"), ["SET LOCAL ROLE service_role"], statement)

    def _as(self, role: str) -> str:
        head, _, tail = self._super.partition("//")[2].partition("@")
        assert head
        return f"postgresql://{role}:{self._password}@{tail}"


def _ask(url: str, settings: Sequence[str], statement: str) -> list[Any]:
    """The rows; a single column bare. Raises what Postgres says."""
    with psycopg.connect(url) as connection:
        for setting in settings:
            connection.execute(setting)  # type: ignore[arg-type,unused-ignore]
        cursor = connection.execute(statement)  # type: ignore[arg-type,unused-ignore]
        rows = cursor.fetchall() if cursor.description else [(cursor.rowcount,)]
    return [row[0] if len(row) == 1 else row for row in rows]


@contextmanager
def project_database(server: PostgresServer, *, realtime: bool = True) -> Iterator[ProjectDatabase]:
    """An empty one, for the length of the block."""
    name = server.create_database()
    try:
        made = server.url(name).replace("+psycopg", "")
        with psycopg.connect(made, autocommit=True) as connection:
            connection.execute(_ROLES)
            connection.execute(_AUTH)
            if realtime:
                connection.execute("CREATE PUBLICATION supabase_realtime")
                connection.execute(
                    sql.SQL("GRANT CREATE ON DATABASE {} TO project_owner").format(sql.Identifier(name))
                )
                connection.execute("ALTER PUBLICATION supabase_realtime OWNER TO project_owner")
        yield ProjectDatabase(server, name)
    finally:
        server.drop_database(name)
