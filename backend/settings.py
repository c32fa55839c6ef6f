"""Settings of the backend, read once per process from the environment (prefix FANFARE_) and `.env`.

Every default runs with no key, no GPU and no cloud. `.env.example` and docs/configuration.md list them all.
"""

from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from contract.addresses import check, is_redis

Wait = Annotated[float, Field(gt=0, le=7 * 86400)]  # seconds


def default_home() -> Path:
    """Where the embedded default keeps its database, files and broker."""
    return Path.home() / ".fanfare"


def _usual(name: str, *usual: str) -> AliasChoices:
    """FANFARE_<name>, or else the names that users know from elsewhere."""
    return AliasChoices(f"FANFARE_{name}", *usual)


class Settings(BaseSettings):
    """One attribute per setting; the environment's names are FANFARE_<NAME>."""

    model_config = SettingsConfigDict(
        env_prefix="FANFARE_", env_file=".env", extra="ignore", env_ignore_empty=True, populate_by_name=True
    )

    home: Path = Field(default_factory=default_home)

    # services; empty: the embedded default under `home`
    database_url: str = ""
    broker_url: str = ""
    result_url: str = ""  # empty: the broker's URL, when that is Redis
    storage_url: str = ""  # file:///folder, s3://bucket/prefix

    # the API
    api_host: str = "127.0.0.1"
    api_port: int = Field(default=8000, ge=0, le=65535)
    public_url: str = ""  # where clients reach the API; empty: http://<api_host>:<api_port>
    node_url: str = ""  # where nodes reach the API; empty: public_url
    api_anonymous: bool = False  # serve without a key beyond loopback (behind something else that guards it)
    cors_origins: Annotated[list[str], NoDecode] = []
    metrics: Literal["off", "guarded", "open"] = "guarded"  # guarded: by metrics_token, or else as all routes
    metrics_token: SecretStr = SecretStr("")  # good for /metrics alone
    max_body_bytes: int = Field(default=8 * 1024 * 1024, ge=1024)  # reference images may be in it
    secret_key: SecretStr = SecretStr(
        ""
    )  # signs file URLs and derives webhook secrets; empty: kept in `home`
    download_url_ttl_s: int = Field(default=3600, ge=60, le=7 * 86400)
    upload_url_ttl_s: int = Field(default=24 * 3600, ge=60, le=7 * 86400)
    max_upload_bytes: int = Field(default=64 * 1024 * 1024, ge=1024 * 1024)

    # language model
    llm: Literal["", "template", "openai"] = ""  # empty: openai where a key or a URL is set, else template
    llm_url: str = Field(default="", validation_alias=_usual("LLM_URL", "OPENAI_BASE_URL"))
    llm_api_key: SecretStr = Field(
        default=SecretStr(""), validation_alias=_usual("LLM_API_KEY", "OPENAI_API_KEY")
    )
    llm_model: str = Field(default="gpt-4o-mini", validation_alias=_usual("LLM_MODEL", "OPENAI_MODEL"))
    llm_timeout_s: float = Field(default=60, gt=0, le=600)  # for one attempt, whatever the server does
    llm_attempts: int = Field(default=3, ge=1, le=10)

    # S3, where storage_url is s3://
    s3_endpoint_url: str = Field(
        default="", validation_alias=_usual("S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    )
    s3_public_endpoint_url: str = ""  # where clients reach it; empty: s3_endpoint_url
    s3_node_endpoint_url: str = ""  # where nodes reach it; empty: s3_endpoint_url
    s3_region: str = Field(
        default="us-east-1", validation_alias=_usual("S3_REGION", "AWS_REGION", "AWS_DEFAULT_REGION")
    )
    s3_access_key_id: str = Field(
        default="", validation_alias=_usual("S3_ACCESS_KEY_ID", "AWS_ACCESS_KEY_ID")
    )
    s3_secret_access_key: SecretStr = Field(
        default=SecretStr(""), validation_alias=_usual("S3_SECRET_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY")
    )
    s3_session_token: SecretStr = Field(
        default=SecretStr(""), validation_alias=_usual("S3_SESSION_TOKEN", "AWS_SESSION_TOKEN")
    )

    # Supabase: understood already, used by adapters to come
    supabase_url: str = Field(default="", validation_alias=_usual("SUPABASE_URL", "SUPABASE_URL"))
    supabase_service_role_key: SecretStr = Field(
        default=SecretStr(""),
        validation_alias=_usual("SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_SERVICE_ROLE_KEY"),
    )

    # images
    default_model: str = "sketch"
    models: Annotated[list[str], NoDecode] = ["sketch"]  # known even before a node has announced them
    max_count: int = Field(default=100, ge=1, le=100)
    thumbnail_format: Literal["webp", "avif"] = "webp"
    max_image_pixels: int = Field(default=50_000_000, ge=1_000_000)

    # images that others start from, and their masks, by the URLs that requests name
    reference_allow_private: bool = False  # development: loopback and private addresses may be asked
    reference_allow_http: bool = False
    reference_timeout_s: float = Field(default=30, gt=0, le=120)  # for one try, from look-up to last byte
    max_reference_bytes: int = Field(default=20 * 1024 * 1024, ge=1024)

    # products
    max_import_bytes: int = Field(default=64 * 1024 * 1024, ge=1024)  # a table of them

    # deadlines, in seconds
    job_deadline_s: int = Field(default=24 * 3600, ge=10)
    sweep_interval_s: float = Field(default=5, ge=0.5, le=300)
    redispatch_after_s: float = Field(default=30, ge=1)  # accepted, never begun: sent again

    # what is let in; 0: no limit
    max_requests_per_minute: int = Field(default=0, ge=0)  # that ask for work, of one owner
    max_open_images_per_owner: int = Field(default=10_000, ge=0)  # in jobs that have not ended
    max_running_images_per_owner: int = Field(default=0, ge=0)  # that nodes are given at once
    max_open_images: int = Field(default=100_000, ge=0)  # of all owners together

    # the order of images
    move_forward_after_s: float = Field(default=60, ge=1)  # an owner was served nothing for so long

    # retention
    job_ttl_s: int = Field(default=0, ge=0, le=10 * 365 * 86400)  # after its end; 0: kept until it is deleted
    prune_at: str = Field(default="", pattern=r"^(([01]\d|2[0-3]):[0-5]\d)?$")  # UTC; empty: never

    # webhooks
    webhook_allow_private: bool = False  # development: loopback and private addresses may be called
    webhook_allow_http: bool = False
    webhook_timeout_s: float = Field(default=15, gt=0, le=60)
    # waits after each failed attempt, as Standard Webhooks suggests them
    webhook_retry_after_s: Annotated[list[Wait], NoDecode, Field(max_length=20)] = [
        5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600,
    ]  # fmt: skip

    # e-mail, to targets mailto:...; without a host there is none
    smtp_host: str = ""
    smtp_port: int = Field(default=587, ge=1, le=65535)
    smtp_user: str = ""
    smtp_password: SecretStr = SecretStr("")
    smtp_security: Literal["starttls", "tls", "none"] = "starttls"
    smtp_from: str = ""  # Fanfare <fanfare@example.com>
    email_recipients: Annotated[list[str], NoDecode] = []  # addresses and domains; empty: everybody

    worker_concurrency: int = Field(default=2, ge=1)
    alive_file: Path | None = None  # worker and beat touch it as long as they work: for health checks
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @property
    def job_ttl(self) -> timedelta | None:
        """How long a job is kept after its end; None: until it is deleted."""
        return timedelta(seconds=self.job_ttl_s) if self.job_ttl_s else None

    @field_validator("cors_origins", "models", "webhook_retry_after_s", "email_recipients", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        if isinstance(value, str):
            return [part.strip() for part in value.split(",") if part.strip()]
        return value

    @field_validator("database_url")
    @classmethod
    def _name_the_driver(cls, value: str) -> str:
        """Accepts the usual postgres:// and postgresql:// and means psycopg 3."""
        for usual in ("postgresql://", "postgres://"):
            if value.startswith(usual):
                return "postgresql+psycopg://" + value.removeprefix(usual)
        return value

    @model_validator(mode="after")
    def _fill_in(self) -> "Settings":
        self.home = self.home.expanduser().absolute()
        if not self.database_url:
            self.database_url = f"sqlite:///{self.home / 'fanfare.db'}"
        if not self.storage_url:
            self.storage_url = (self.home / "files").as_uri()
        if not self.result_url and is_redis(self.broker_url):
            self.result_url = self.broker_url
        for url in (self.broker_url, self.result_url):
            check(url)
        if not self.public_url:
            host = f"[{self.api_host}]" if ":" in self.api_host else self.api_host
            host = "127.0.0.1" if self.api_host in ("0.0.0.0", "::") else host  # noqa: S104 - compared, not bound
            self.public_url = f"http://{host}:{self.api_port}"
        self.public_url = self.public_url.rstrip("/")
        self.node_url = (self.node_url or self.public_url).rstrip("/")
        if not self.llm:
            self.llm = "openai" if self.llm_url or self.llm_api_key.get_secret_value() else "template"
        return self


@cache
def get_settings() -> Settings:
    """This process's settings."""
    return Settings()
