"""A real PgBouncer in transaction mode, as Supabase's pooler is one: each transaction gets any session."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import sqlalchemy as sa

from tests.services import (
    LOOPBACK,
    PostgresServer,
    Service,
    ServiceDidNotStart,
    free_port,
    missing,
    service_folder,
    unprivileged,
)

SESSIONS = 3  # on the server, for all clients together


class PgBouncer:
    """Before all databases of one Postgres, on a port of its own."""

    def __init__(self, binary: str, folder: Path, server: PostgresServer) -> None:
        self.port = free_port()
        self._server = server
        prefix, user = unprivileged()
        url = sa.make_url(server.url())
        (folder / "users").write_text(f'"{url.username}" "{url.password}"\n')
        lines = [
            "[databases]", f"* = host={LOOPBACK} port={server.port}",
            "[pgbouncer]", f"listen_addr = {LOOPBACK}", f"listen_port = {self.port}", "unix_socket_dir =",
            "auth_type = scram-sha-256", f"auth_file = {folder / 'users'}",
            "pool_mode = transaction", f"default_pool_size = {SESSIONS}", "max_client_conn = 200",
        ]  # fmt: skip
        (folder / "pgbouncer.ini").write_text("\n".join(lines) + "\n")
        if user is not None:
            for path in (folder, *folder.iterdir()):
                os.chown(path, user, user)
        command = [*prefix, binary, "-q", str(folder / "pgbouncer.ini")]
        self.service = Service(command, folder / "log", self._answers, user=user)

    def url(self, database: str = "postgres") -> str:
        """As SQLAlchemy takes it; nothing in it says that this is a pooler."""
        return self._server.url(database).replace(f":{self._server.port}/", f":{self.port}/")

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url().replace("+psycopg", ""), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


def find_pgbouncer() -> str | None:
    """Debian's, which is not on everybody's PATH."""
    return shutil.which("pgbouncer", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))


@contextlib.contextmanager
def pgbouncer(server: PostgresServer) -> Iterator[PgBouncer]:
    """One of one's own; skips, or fails in CI, where there is none."""
    binary = find_pgbouncer()
    if binary is None:
        missing("no pooler: pgbouncer is not installed (scripts/services)")
    with service_folder("pgbouncer") as folder:
        pooler = PgBouncer(binary, folder, server)
        try:
            pooler.service.start()
        except ServiceDidNotStart as exc:
            missing(f"PgBouncer did not start: {exc}")
        try:
            yield pooler
        finally:
            pooler.service.stop()
