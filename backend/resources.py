"""The one place where adapters are opened: settings in, working parts out."""

import os
import secrets
from dataclasses import dataclass
from email.headerregistry import Address
from email.utils import parseaddr
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from backend.celery_app import app as celery_app
from backend.db import Database
from backend.download import Downloader
from backend.errors import FanfareError, InvalidKey, TargetRefused
from backend.llm.base import LLM
from backend.llm.template import TemplateLLM
from backend.nodes import NodeDirectory
from backend.notify.base import Notifier
from backend.notify.by_scheme import SchemeNotifier
from backend.notify.mail import MailNotifier, NoMail
from backend.notify.mailto import check_address
from backend.notify.smtp import MailServer
from backend.notify.webhook import WebhookNotifier
from backend.settings import Settings, get_settings
from backend.storage.base import Storage
from backend.storage.local import LocalStorage
from backend.storage.signing import Signer
from contract.signals import Signals, connect

if TYPE_CHECKING:
    from celery import Celery

    from backend.sign_in.tokens import TokenVerifier


class ConfigurationError(FanfareError):
    """A setting has a value that can't work."""

    code = "configuration_error"


@dataclass
class Resources:
    """Everything outside that a process of the backend talks to."""

    settings: Settings
    db: Database
    storage: Storage
    llm: LLM
    notifier: Notifier
    downloader: Downloader
    signals: Signals
    nodes: NodeDirectory
    secret: bytes  # signs file URLs, derives webhook secrets
    celery: "Celery"

    @classmethod
    def open(cls, settings: Settings) -> "Resources":
        """Opens all adapters; none of them connects yet. Raises `ConfigurationError`."""
        if not settings.broker_url or not settings.result_url:
            raise ConfigurationError(
                "FANFARE_BROKER_URL (and FANFARE_RESULT_URL, where the broker isn't Redis) must be set. "
                "`fanfare up` brings a broker of its own."
            )
        secret = _secret(settings)
        signals = Signals(connect(settings.result_url))
        return cls(
            settings=settings,
            db=Database(settings.database_url),
            storage=_open_storage(settings, secret),
            llm=_open_llm(settings),
            notifier=_open_notifier(settings),
            downloader=Downloader(
                timeout_s=settings.reference_timeout_s,
                max_bytes=settings.max_reference_bytes,
                allow_private=settings.reference_allow_private,
                allow_http=settings.reference_allow_http,
            ),
            signals=signals,
            nodes=NodeDirectory(signals),
            secret=secret,
            celery=celery_app,
        )

    def close(self) -> None:
        """Gives the database's connections back; the others have none that need it."""
        self.db.close()


def _open_llm(settings: Settings) -> LLM:
    if settings.llm == "template":
        return TemplateLLM()
    from backend.llm.openai import OpenAILLM  # takes a second to import, so only where it is used

    return OpenAILLM(
        api_key=settings.llm_api_key.get_secret_value(),
        base_url=settings.llm_url or None,
        model=settings.llm_model,
        timeout_s=settings.llm_timeout_s,
    )


def open_sign_in(settings: Settings) -> "TokenVerifier | None":
    """What takes the access tokens of users, for the API alone; None: only API keys are taken."""
    if not settings.supabase_sign_in:
        return None
    from backend.sign_in.key_set import (
        KeySet,  # takes a tenth of a second to import, so only where it is used
    )
    from backend.sign_in.tokens import TokenVerifier

    return TokenVerifier(
        keys=KeySet(settings.supabase_jwks_url),
        secret=settings.supabase_jwt_secret.get_secret_value(),
        issuer=settings.supabase_jwt_issuer or settings.supabase_auth_url,
        audience=settings.supabase_jwt_audience,
        takes_anonymous=settings.supabase_anonymous_users,
    )


def _open_notifier(settings: Settings) -> Notifier:
    webhook = WebhookNotifier(
        timeout_s=settings.webhook_timeout_s,
        allow_private=settings.webhook_allow_private,
        allow_http=settings.webhook_allow_http,
    )
    return SchemeNotifier({"mailto": open_mail(settings)}, otherwise=webhook)


def open_mail(settings: Settings) -> MailNotifier | NoMail:
    """What writes letters. Raises `ConfigurationError`."""
    if not settings.smtp_host:
        return NoMail()
    return MailNotifier(
        MailServer(
            host=settings.smtp_host,
            port=settings.smtp_port,
            user=settings.smtp_user,
            password=settings.smtp_password.get_secret_value(),
            security=settings.smtp_security,
        ),
        sender=_sender(settings.smtp_from),
        recipients=settings.email_recipients,
        timeout_s=settings.webhook_timeout_s,
    )


def _sender(text: str) -> Address:
    name, address = parseaddr(text if text.isprintable() else "")
    try:
        return Address(name, addr_spec=check_address(address))
    except (TargetRefused, ValueError) as exc:
        raise ConfigurationError(
            "FANFARE_SMTP_FROM must be an address: fanfare@example.com, or Fanfare <fanfare@example.com>."
        ) from exc


def open_storage(settings: Settings) -> Storage:
    """The storage alone, for who needs no broker. Raises `ConfigurationError`."""
    return _open_storage(settings, _secret(settings))


def _open_storage(settings: Settings, secret: bytes) -> Storage:
    url = urlsplit(settings.storage_url)
    if url.scheme == "file" and url.path:
        return LocalStorage(
            Path(unquote(url.path)),
            public_url=settings.public_url,
            node_url=settings.node_url,
            signer=Signer(secret),
        )
    if url.scheme == "s3" and url.netloc:
        from backend.storage.s3 import S3Storage  # takes half a second to import

        return S3Storage(
            bucket=url.netloc,
            prefix=url.path.strip("/"),
            endpoint_url=settings.s3_endpoint_url or None,
            public_endpoint_url=settings.s3_public_endpoint_url or None,
            node_endpoint_url=settings.s3_node_endpoint_url or None,
            region=settings.s3_region,
            access_key_id=settings.s3_access_key_id,
            secret_access_key=settings.s3_secret_access_key.get_secret_value(),
            session_token=settings.s3_session_token.get_secret_value(),
        )
    if url.scheme == "supabase" and url.netloc:
        return _open_supabase(settings, url.netloc, url.path.strip("/"))
    raise ConfigurationError(
        "FANFARE_STORAGE_URL must be file:///folder, s3://bucket/prefix or supabase://bucket/prefix."
    )


def _open_supabase(settings: Settings, bucket: str, prefix: str) -> Storage:
    from backend.storage.supabase import SupabaseStorage  # takes a second to import

    key = settings.supabase_service_role_key.get_secret_value()
    if not settings.supabase_url.startswith(("https://", "http://")) or not key:
        raise ConfigurationError(
            "supabase:// needs FANFARE_SUPABASE_URL (https://...) and FANFARE_SUPABASE_SERVICE_ROLE_KEY."
        )
    try:
        return SupabaseStorage(
            bucket=bucket,
            prefix=prefix,
            url=settings.supabase_url,
            key=key,
            public_url=settings.supabase_public_url,
            node_url=settings.supabase_node_url,
        )
    except InvalidKey as exc:
        raise ConfigurationError(f"FANFARE_STORAGE_URL: {prefix!r} can't be a prefix.") from exc
    except ValueError as exc:
        raise ConfigurationError(f"FANFARE_SUPABASE_URL can't be read: {exc}") from exc


def _secret(settings: Settings) -> bytes:
    given = settings.secret_key.get_secret_value()
    if given:
        return given.encode()
    path = settings.home / "secret.key"
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    _create_secret(path)
    return path.read_bytes().strip()


def _create_secret(path: Path) -> None:
    """Makes the key once, whole, also when several processes start at the same time."""
    if path.exists():
        return
    draft = path.with_name(f".secret-{os.getpid()}-{secrets.token_hex(4)}")
    draft.touch(mode=0o600)
    draft.write_text(secrets.token_hex(32))
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


_opened: tuple[int, Resources] | None = None


def current() -> Resources:
    """This process's resources, opened at first use; a forked child opens its own."""
    global _opened
    if _opened is None or _opened[0] != os.getpid():
        _opened = (os.getpid(), Resources.open(get_settings()))
    return _opened[1]
