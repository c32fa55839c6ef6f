"""The services that the tests build on are real, apart from each other, and gone at the end."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import redis
import sqlalchemy as sa

from tests.services import LEASH, PostgresServer, RedisServer, Service, ServiceDidNotStart, missing


def test_each_test_gets_an_empty_redis(redis_url: str, shared_redis: RedisServer) -> None:
    with redis.Redis.from_url(redis_url) as mine, redis.Redis.from_url(shared_redis.new_url()) as other:
        assert mine.dbsize() == 0
        mine.set("key", "value")
        assert other.get("key") is None


def test_redis_keeps_its_data_over_a_restart(own_redis: RedisServer) -> None:
    with redis.Redis.from_url(own_redis.url(3), decode_responses=True) as client:
        client.set("key", "value")
    own_redis.service.stop()
    own_redis.service.start()
    with redis.Redis.from_url(own_redis.url(3), decode_responses=True) as client:
        assert client.get("key") == "value"


def test_each_test_gets_an_empty_postgres(postgres_url: str) -> None:
    engine = sa.create_engine(postgres_url)
    with engine.begin() as connection:
        assert sa.inspect(connection).get_table_names() == []
        connection.execute(sa.text("CREATE TABLE t (x text)"))
        connection.execute(sa.text("INSERT INTO t VALUES ('Zürich 東京')"))
        assert connection.scalar(sa.text("SELECT x FROM t")) == "Zürich 東京"
    engine.dispose()


def test_postgres_keeps_its_data_over_a_restart(own_postgres: PostgresServer) -> None:
    url = own_postgres.url(own_postgres.create_database()).replace("+psycopg", "")
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE t (x int)")
    own_postgres.service.stop()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url, connect_timeout=2)
    own_postgres.service.start()
    with psycopg.connect(url) as connection:
        connection.execute("SELECT x FROM t")


def test_postgres_lets_nobody_in_without_the_password(shared_postgres: PostgresServer) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(
            host="127.0.0.1", port=shared_postgres.port, user="fanfare", password="guess", dbname="postgres"
        )


def test_a_service_that_ends_at_once_says_why(tmp_path: Path) -> None:
    service = Service(["sh", "-c", "echo out of luck; exit 3"], tmp_path / "log", lambda: False)
    with pytest.raises(ServiceDidNotStart, match="out of luck"):
        service.start()


def test_a_service_ends_with_a_test_run_that_is_killed() -> None:
    # Given a holder of the leash, whose service has said its process id
    leash = subprocess.Popen(
        [sys.executable, "-c", LEASH, str(int(signal.SIGTERM)), "", "sh", "-c", "echo $$; exec sleep 60"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert leash.stdin
    assert leash.stdout
    pid = int(leash.stdout.readline())

    # When the other end of the pipe is gone, as it is when a process dies
    leash.stdin.close()

    # Then the service is, too
    leash.wait(60)
    leash.stdout.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_what_is_missing_skips_here_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no such thing"):
        missing("no such thing")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no such thing"):
        missing("no such thing")


def test_the_environment_is_clean() -> None:
    assert "FANFARE_DATABASE_URL" not in os.environ
    assert not Path(os.environ["FANFARE_HOME"]).is_relative_to(Path.home() / ".fanfare")
