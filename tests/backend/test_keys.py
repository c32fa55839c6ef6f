"""API keys."""

import pytest

from backend import keys
from backend.db import Database
from backend.errors import InvalidRequest, NotFound


def test_a_key_is_found_by_its_text_alone(database: Database) -> None:
    with database.session_scope() as session:
        key, text = keys.create(session, " frontend ")
    with database.read_scope() as session:
        found = keys.find(session, text)
        assert found is not None
        assert (found.id, found.name) == (key.id, "frontend")
        assert text not in repr(vars(found)), "the key itself is not stored"
        for wrong in (
            text[:-1],
            text + "x",
            text.upper(),
            "",
            "ff",
            "ff__",
            f"ff_{key.prefix}_",
            f"ff_{key.prefix}_x",
        ):
            assert keys.find(session, wrong) is None, wrong


def test_a_revoked_key_is_none(database: Database) -> None:
    with database.session_scope() as session:
        assert not keys.any_exist(session)
        key, text = keys.create(session, "old")
    with database.session_scope() as session:
        keys.revoke(session, key.prefix)
    with database.session_scope() as session:
        assert keys.find(session, text) is None
        assert keys.any_exist(session), "nobody becomes anonymous again"
        assert keys.revoke(session, str(key.id)).revoked_at is not None
        with pytest.raises(NotFound):
            keys.revoke(session, "nothing")


@pytest.mark.parametrize("name", ["", "  ", "x" * 129, "a\nb"])
def test_a_key_needs_a_name(database: Database, name: str) -> None:
    with database.session_scope() as session, pytest.raises(InvalidRequest):
        keys.create(session, name)


def test_a_weight_is_a_small_number(database: Database) -> None:
    with database.session_scope() as session:
        key, _ = keys.create(session, "frontend", weight=5)
        assert keys.weigh(session, key.prefix, 2).weight == 2
        for wrong in (0, -1, 101):
            with pytest.raises(InvalidRequest):
                keys.weigh(session, key.prefix, wrong)
        with pytest.raises(NotFound):
            keys.weigh(session, "nobody", 2)
