"""Settings that are refused together."""

from typing import Any

import pytest
from pydantic import ValidationError

from backend.settings import Settings


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({}, "FANFARE_SUPABASE_URL"),
        ({"supabase_url": "abcd.supabase.co"}, "FANFARE_SUPABASE_URL"),
        ({"supabase_url": "https://x.supabase.co", "supabase_jwt_secret": "s" * 31}, "fewer than"),
    ],
)
def test_sign_in_needs_what_it_needs(given: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named) as refused:
        Settings(_env_file=None, supabase_sign_in=True, **given)
    assert "sss" not in str(refused.value)


def test_where_a_projects_sign_in_is() -> None:
    settings = Settings(_env_file=None, supabase_sign_in=True, supabase_url="https://x.supabase.co/")
    assert settings.supabase_jwks_url == "https://x.supabase.co/auth/v1/.well-known/jwks.json"
