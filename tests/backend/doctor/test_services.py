"""What the doctor finds out about services: sign-in, mail."""

from typing import Any

from backend.doctor import services
from backend.doctor.findings import Level
from backend.settings import Settings
from tests.backend.notify.mail_server import mail_server
from tests.backend.sign_in.project import SECRET, Project, project, saying


def found(there: Project, secret: str = "") -> list[tuple[Level, str]]:
    settings = Settings(
        _env_file=None, supabase_sign_in=True, supabase_url=there.url, supabase_jwt_secret=secret
    )
    return [(finding.level, finding.text) for finding in services.sign_in(settings)]


def test_sign_in_needs_keys_or_a_secret() -> None:
    with project() as there:
        assert found(there) == [(Level.OK, f"users of {there.url}, 1 keys")]
        there.answer = saying(b'{"keys": []}')
        assert [level for level, _ in found(there)] == [Level.FAIL]
        assert [level for level, _ in found(there, SECRET)] == [Level.OK]
        there.answer = saying(b"<html>")
        assert [level for level, _ in found(there, SECRET)] == [Level.FAIL]
    assert [level for level, _ in found(there)] == [Level.FAIL], "it is gone"


def test_without_sign_in_nothing_is_asked() -> None:
    assert list(services.sign_in(Settings(_env_file=None, supabase_url="http://127.0.0.1:1"))) == []


def test_a_mail_server_is_greeted_and_gets_no_letter() -> None:
    def found(**options: Any) -> list[Level]:
        settings = Settings(
            _env_file=None,
            smtp_host="127.0.0.1",
            smtp_port=mailbox.port,
            smtp_from="a@example.com",
            **options,
        )
        return [finding.level for finding in services.mail(settings)]

    with mail_server() as mailbox:
        assert found(smtp_security="none") == [Level.OK]
        assert mailbox.hellos == ["example.com"]
        assert mailbox.letters == []
        assert found(smtp_security="starttls") == [Level.FAIL], "it has none"
    assert found(smtp_security="none") == [Level.FAIL], "it is gone"


def test_without_a_mail_server_nothing_is_asked() -> None:
    assert list(services.mail(Settings(_env_file=None))) == []
