"""What users of a Supabase project may do in its database by themselves: read their own, and nothing else.

Proven by SQL as these users, the way that PostgREST lets them in.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest
import sqlalchemy as sa
from psycopg.errors import InsufficientPrivilege

from backend import db
from backend.api.dependencies import USER
from backend.db import Base, Database
from backend.jobs import store
from backend.jobs.models import Job
from backend.migrations import row_security
from tests.backend.conftest import MakeJob
from tests.backend.migrations.project_database import ProjectDatabase, project_database
from tests.backend.test_db import migrate
from tests.services import PostgresServer

ANN, BOB = UUID("5b1c9a52-6f0e-4b8e-9d35-0e6a4a2f7c11"), UUID("c0ffee00-1111-4222-8333-444455556666")
TABLES = ("jobs", "image_generations", "job_events")  # that users may read of
HOOK = {"url": "https://ann.example/?key=1", "events": []}
OPEN = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"


@pytest.fixture
def project(shared_postgres: PostgresServer) -> Iterator[ProjectDatabase]:
    """A project's empty database."""
    with project_database(shared_postgres) as made:
        yield made


@pytest.fixture
def database(project: ProjectDatabase) -> Iterator[Database]:
    """The same, migrated, as the backend has it."""
    db.upgrade(project.url)
    database = Database(project.url)
    yield database
    database.close()


@pytest.fixture
def jobs(database: Database, make_job: MakeJob) -> dict[str, UUID]:
    """Two users' jobs, a key's, this machine's, and a user's that nobody sees any more, or yet."""
    now = datetime.now(UTC)
    made = {
        "ann": make_job(planned=2, owner=f"{USER}{ANN}", webhook=HOOK),
        "bob": make_job(planned=3, owner=f"{USER}{BOB}"),
        "key": make_job(planned=1, owner=str(ANN)),  # should its id be that of a user
        "local": make_job(planned=1, owner="local"),
        "deleted": make_job(planned=1, owner=f"{USER}{ANN}"),
        "reserved": make_job(planned=1, owner=f"{USER}{ANN}"),
    }
    with database.session_scope() as session:
        for name, at in (("deleted", now), ("reserved", now + timedelta(minutes=5))):
            job = store.lock(session, made[name])
            assert job is not None
            job.deleted_at = at
    return made


def test_users_read_their_own(project: ProjectDatabase, jobs: dict[str, UUID]) -> None:
    for user, name, images in ((ANN, "ann", 2), (BOB, "bob", 3)):
        assert project.by_user(user, "SELECT id FROM jobs") == [jobs[name]]
        rows = project.by_user(user, 'SELECT job_id FROM image_generations ORDER BY "index"')
        assert rows == [jobs[name]] * images
        assert set(project.by_user(user, "SELECT job_id FROM job_events")) == {jobs[name]}
    # and by no name does anybody get at what is another's, deleted, or not accepted
    for name in ("bob", "key", "local", "deleted", "reserved"):
        for table, column in (("jobs", "id"), ("image_generations", "job_id"), ("job_events", "job_id")):
            query = f"SELECT count(*) FROM {table} WHERE {column} = '{jobs[name]}'"
            assert project.by_user(ANN, query) == [0], (name, table)
    assert project.by_user(UUID(int=0), "SELECT count(*) FROM image_generations") == [0]


def test_all_that_a_page_needs_can_be_read(project: ProjectDatabase, jobs: dict[str, UUID]) -> None:
    for table, columns in row_security.READABLE.items():
        listed = ", ".join(f'"{column}"' for column in columns)
        assert project.by_user(ANN, f"SELECT {listed} FROM {table}"), table
        theirs = {column.name for column in Base.metadata.tables[table].columns}
        assert set(columns) <= theirs, table


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("jobs", "webhook"), ("jobs", "owner"), ("jobs", "claimed_by"), ("jobs", "deleted_at"), ("jobs", "*"),
        ("image_generations", "node"), ("image_generations", "leased_until"), ("image_generations", "*"),
    ],
)  # fmt: skip
def test_what_is_not_theirs_to_know_can_not(
    project: ProjectDatabase, jobs: dict[str, UUID], table: str, column: str
) -> None:
    with pytest.raises(InsufficientPrivilege):
        project.by_user(ANN, f"SELECT {column} FROM {table}")


@pytest.mark.parametrize("user", [ANN, BOB, None])
def test_nobody_writes(project: ProjectDatabase, jobs: dict[str, UUID], user: UUID | None) -> None:
    mine = jobs["ann"]
    before = [project.own(f"SELECT * FROM {table} ORDER BY 1, 2") for table in TABLES]
    attempts = (
        "UPDATE jobs SET status = 'completed'",
        "UPDATE jobs SET owner = owner",
        f"UPDATE image_generations SET prompt = 'mine' WHERE job_id = '{mine}'",
        "UPDATE job_events SET data = '{}'",
        f"DELETE FROM jobs WHERE id = '{mine}'",
        "DELETE FROM image_generations",
        "DELETE FROM job_events",
        "TRUNCATE jobs CASCADE",
        f"INSERT INTO job_events VALUES ('{mine}', 99, 'job.completed', '{{}}', now())",
        "INSERT INTO image_generations SELECT * FROM image_generations",
        f"INSERT INTO jobs (id, pipeline, status) VALUES ('{ANN}', 'thumbnails', 'pending')",
        "SELECT id FROM jobs FOR UPDATE",
        "ALTER TABLE jobs DISABLE ROW LEVEL SECURITY",
        "DROP POLICY users_read_their_own ON jobs",
        "CREATE TABLE mine (id int)",
    )
    for attempt in attempts:
        with pytest.raises(InsufficientPrivilege):
            project.by_user(user, attempt)
    assert [project.own(f"SELECT * FROM {table} ORDER BY 1, 2") for table in TABLES] == before


def test_who_is_not_signed_in_reads_nothing(project: ProjectDatabase, jobs: dict[str, UUID]) -> None:
    for table in project.own(OPEN):
        with pytest.raises(InsufficientPrivilege):
            project.by_user(None, f"SELECT count(*) FROM {table}")


def test_no_table_is_forgotten(project: ProjectDatabase, jobs: dict[str, UUID]) -> None:
    """Neither those of later migrations, nor Alembic's own."""
    tables = project.own(OPEN)
    assert {*Base.metadata.tables, "alembic_version"} <= set(tables)
    assert project.own(f"{OPEN} AND NOT relrowsecurity") == []
    for table in set(tables) - set(TABLES):
        with pytest.raises(InsufficientPrivilege):
            project.by_user(ANN, f"SELECT count(*) FROM {table}")
    written = "INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER"
    for role in ("anon", "authenticated"):
        granted = f"{OPEN} AND has_table_privilege('{role}', oid, 'SELECT, {written}')"
        assert project.own(granted) == []
        changeable = f"{OPEN} AND has_any_column_privilege('{role}', oid, 'INSERT, UPDATE, REFERENCES')"
        assert project.own(changeable) == []


def test_a_table_that_comes_later_is_closed(project: ProjectDatabase, database: Database) -> None:
    # Given a table that is open to all, as Supabase makes it, whose row-level security somebody has turned on
    for is_on in (False, True):
        project.own("CREATE TABLE stock (id int PRIMARY KEY)")
        assert project.by_user(None, "SELECT count(*) FROM stock") == [0]
        if is_on:
            project.own("ALTER TABLE stock ENABLE ROW LEVEL SECURITY")
        with database.engine.begin() as connection:
            row_security.secure(connection, ["stock", "not there"])
        for user in (None, ANN):
            with pytest.raises(InsufficientPrivilege):
                project.by_user(user, "TRUNCATE stock")
        assert project.own(f"{OPEN} AND relname = 'stock' AND relrowsecurity") == ["stock"]
        project.own("DROP TABLE stock")


def test_what_an_administrator_has_opened_stays_open(project: ProjectDatabase, database: Database) -> None:
    project.own("CREATE POLICY prices ON webhook_endpoints FOR SELECT TO anon USING (true)")
    project.own("GRANT SELECT ON webhook_endpoints TO anon")
    db.upgrade(project.url)
    assert project.by_user(None, "SELECT count(*) FROM webhook_endpoints") == [0]


def test_an_upgrade_of_what_is_up_to_date_locks_nothing(project: ProjectDatabase, database: Database) -> None:
    # Given somebody who reads
    with database.read_scope() as reader, database.session_scope() as session:
        for table in Base.metadata.tables:
            reader.execute(sa.text(f"LOCK TABLE {table} IN ACCESS SHARE MODE"))
        # Then the upgrade doesn't wait for him, nor others for it
        session.execute(sa.text("SET LOCAL lock_timeout = '200ms'"))
        row_security.secure(session.connection(), [*Base.metadata.tables, "alembic_version"])
        locks = "SELECT DISTINCT mode FROM pg_locks WHERE pid = pg_backend_pid() AND relation IS NOT NULL"
        modes = session.scalars(sa.text(locks))
        assert modes.all() == ["AccessShareLock"]


def test_the_projects_server_and_the_backend_see_all(
    project: ProjectDatabase, database: Database, jobs: dict[str, UUID]
) -> None:
    assert project.by_server("SELECT count(*) FROM jobs") == [len(jobs)]
    with database.read_scope() as session:
        assert len(session.scalars(sa.select(Job)).all()) == len(jobs)


# -- Realtime ---------------------------------------------------------------------------------------------


PUBLISHED = "SELECT tablename FROM pg_publication_tables WHERE pubname = 'supabase_realtime' ORDER BY 1"


def test_jobs_and_images_are_published_once(project: ProjectDatabase, database: Database) -> None:
    assert project.own(PUBLISHED) == ["image_generations", "jobs"]
    db.upgrade(project.url)
    assert project.own(PUBLISHED) == ["image_generations", "jobs"]
    replica_identity = (
        "SELECT DISTINCT relreplident::text FROM pg_class WHERE relname IN ('jobs', 'image_generations')"
    )
    assert project.own(replica_identity) == ["d"]


def test_a_publication_of_all_tables_is_left_as_it_is(project: ProjectDatabase) -> None:
    project.administer(
        "DROP PUBLICATION supabase_realtime", "CREATE PUBLICATION supabase_realtime FOR ALL TABLES"
    )
    db.upgrade(project.url)
    assert {"image_generations", "jobs"} <= set(project.own(PUBLISHED))


def test_a_publication_of_somebody_else_is_no_hindrance(
    project: ProjectDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    project.administer("ALTER PUBLICATION supabase_realtime OWNER TO CURRENT_USER")
    db.upgrade(project.url)
    assert project.own(PUBLISHED) == []
    assert "add the table image_generations" in caplog.text


def test_without_realtime_there_is_nothing_to_publish(shared_postgres: PostgresServer) -> None:
    with project_database(shared_postgres, realtime=False) as project:
        db.upgrade(project.url)
        assert project.own("SELECT count(*) FROM pg_publication") == [0]
        assert project.own(f"{OPEN} AND NOT relrowsecurity") == []


@pytest.mark.parametrize("user", [ANN, BOB])
def test_what_realtime_asks_is_answered(project: ProjectDatabase, jobs: dict[str, UUID], user: UUID) -> None:
    """For each change and each subscriber it looks, as that user, whether the row with this key is there."""
    mine = jobs["ann"]
    (image, *_) = project.own(f"SELECT id FROM image_generations WHERE job_id = '{mine}'")
    expected = [1] if user == ANN else [0]
    assert project.by_user(user, f"SELECT count(1) FROM image_generations WHERE id = '{image}'") == expected
    seen = project.by_user(
        user, "SELECT has_column_privilege('authenticated', 'image_generations', 'job_id', 'SELECT')"
    )
    assert seen == [True], "subscriptions filter by it"


# -- up, down, and elsewhere ------------------------------------------------------------------------------


def test_there_is_a_way_back_and_forth(project: ProjectDatabase, jobs: dict[str, UUID]) -> None:
    migrate(project.url, "0006")
    assert project.own("SELECT count(*) FROM pg_policies") == [0]
    assert project.own(PUBLISHED) == []
    for user in (ANN, None):
        with pytest.raises(InsufficientPrivilege):
            project.by_user(user, "SELECT id FROM jobs")
    db.upgrade(project.url)
    assert project.by_user(ANN, "SELECT id FROM jobs") == [jobs["ann"]]
    assert project.own(PUBLISHED) == ["image_generations", "jobs"]


def test_data_that_moves_to_supabase_is_closed_by_the_next_upgrade(shared_postgres: PostgresServer) -> None:
    with project_database(shared_postgres) as project:
        # Given a migrated database of before it was Supabase's
        project.administer("ALTER SCHEMA auth RENAME TO elsewhere")
        db.upgrade(project.url)
        assert project.by_user(None, "SELECT count(*) FROM jobs") == [0], "open"
        project.administer("ALTER SCHEMA elsewhere RENAME TO auth")
        db.upgrade(project.url)
        with pytest.raises(InsufficientPrivilege):
            project.by_user(None, "SELECT count(*) FROM jobs")
        assert project.by_user(ANN, "SELECT count(id) FROM jobs") == [0]


def test_elsewhere_nothing_of_it_is_there(postgres_url: str, shared_postgres: PostgresServer) -> None:
    # Given the roles, and a schema with the same name that is another program's
    with project_database(shared_postgres), psycopg.connect(postgres_url.replace("+psycopg", "")) as plain:
        plain.execute("CREATE SCHEMA auth")
        plain.commit()
        db.upgrade(postgres_url)
        for query in (
            "SELECT count(*) FROM pg_policies",
            "SELECT count(*) FROM pg_publication",
            f"SELECT count(*) FROM ({OPEN} AND relrowsecurity) AS secured",
        ):
            assert plain.execute(query).fetchone() == (0,)  # type: ignore[arg-type,unused-ignore]
        migrate(postgres_url, "0006")


def test_sqlite_has_none_of_it_either(tmp_path_factory: pytest.TempPathFactory) -> None:
    url = f"sqlite:///{tmp_path_factory.mktemp('plain') / 'test.db'}"
    db.upgrade(url)
    migrate(url, "0006")
