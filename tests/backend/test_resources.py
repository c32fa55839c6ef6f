"""Which adapter a setting opens."""

from pathlib import Path
from typing import Any

import pytest

from backend.resources import ConfigurationError, open_storage
from backend.settings import Settings

PROJECT = {"supabase_url": "https://ref.supabase.co", "supabase_service_role_key": "key"}


def opened(tmp_path: Path, **settings: Any) -> str:
    return open_storage(Settings(home=tmp_path, **settings)).name


def test_the_url_says_which_storage(tmp_path: Path) -> None:
    assert opened(tmp_path) == "local"
    assert opened(tmp_path, storage_url="s3://bucket/prefix") == "s3"
    assert opened(tmp_path, storage_url="supabase://bucket/prefix", **PROJECT) == "supabase"


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"storage_url": "ftp://there"}, "supabase://bucket/prefix"),
        ({"storage_url": "supabase:///prefix", **PROJECT}, "supabase://bucket/prefix"),
        ({"storage_url": "supabase://bucket"}, "FANFARE_SUPABASE_URL"),
        ({"storage_url": "supabase://bucket", "supabase_url": "https://ref.supabase.co"}, "SERVICE_ROLE_KEY"),
        ({"storage_url": "supabase://bucket", **PROJECT, "supabase_url": "ref.supabase.co"}, "SUPABASE_URL"),
        ({"storage_url": "supabase://bucket", **PROJECT, "supabase_url": "https://["}, "SUPABASE_URL"),
        ({"storage_url": "supabase://bucket/a prefix", **PROJECT}, "prefix"),
    ],
)
def test_what_can_not_work_is_said_at_the_start(tmp_path: Path, settings: dict[str, str], hint: str) -> None:
    with pytest.raises(ConfigurationError, match=hint):
        opened(tmp_path, **settings)
