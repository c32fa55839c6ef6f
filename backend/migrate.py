"""Brings the database up to date, and says plainly where its URL is wrong."""

from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from backend import db
from backend.errors import FanfareError
from backend.settings import Settings


class WrongDatabase(FanfareError):
    """FANFARE_DATABASE_URL is no database that is known here: sqlite:///file or postgresql://user@host/name."""

    code = "wrong_database"


def migrate(settings: Settings) -> None:
    """Safe when several processes start at once. Raises `WrongDatabase` or `DatabaseUnavailable`."""
    try:
        db.upgrade(settings.database_url)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as exc:
        raise WrongDatabase from exc
