"""Settings of a GPU node, read once per process from the environment (prefix FANFARE_).

A node needs the broker's URL and nothing else; the result store's is the broker's where that is Redis.
"""

import re
import socket
from functools import cache
from typing import Annotated, Literal
from urllib.parse import unquote

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from contract.addresses import check, is_redis
from gpu_worker.faults import Faults


class ModelSettings(BaseSettings):
    """Which models there are: all that downloads need, without a broker."""

    model_config = SettingsConfigDict(
        env_prefix="FANFARE_", env_file=".env", extra="ignore", env_ignore_empty=True, populate_by_name=True
    )

    node_catalog: str = ""  # a TOML file; empty: the shipped one
    node_models: Annotated[list[str], NoDecode] = []  # aliases to serve; empty: all that are on the disk
    node_model_cache: str = ""  # a folder; empty: the Hugging Face cache
    node_download: bool = False  # models that the catalog names may be fetched from the hub

    @field_validator("node_models", mode="before")
    @classmethod
    def _split_aliases(cls, value: object) -> object:
        return _split(value)


class Settings(ModelSettings):
    """One attribute per setting; the environment's names are FANFARE_<NAME>."""

    broker_url: str
    result_url: str = ""  # empty: the broker's URL, when that is Redis

    node_name: str = Field(default_factory=socket.gethostname)
    node_engines: Annotated[list[str], NoDecode] = ["sketch"]  # names of `gpu_worker.registry.ENGINES`
    node_devices: Annotated[
        list[str], NoDecode
    ] = []  # for engines that use torch: names or kinds; empty: all
    # images in hand: being made, encoded, uploaded; none: what suits the engine
    node_concurrency: int | None = Field(default=None, ge=1, le=256)
    node_announce_s: float = Field(default=3, gt=0, le=60)
    node_attempts: int = Field(default=3, ge=1, le=20)  # per image, over all nodes and restarts
    node_stall_s: float = Field(default=900, ge=1, le=86400)  # an engine that is silent for longer hangs
    node_drain_s: float = Field(default=30, ge=0, le=3600)  # to finish what is begun; the rest is handed back
    batch_window_ms: int = Field(default=20, ge=0, le=1000)
    upload_timeout_s: float = Field(default=180, gt=0, le=1800)

    # the sketch engine as a simulator: each picture takes at least this long, with progress and cancel
    sketch_delay_s: float = Field(default=0, ge=0, le=3600)
    sketch_faults: Annotated[Faults, NoDecode] = Faults()  # which faults it makes, and in how many images

    # the openai engine: any server with the images API
    images_url: str = Field(
        default="", validation_alias=AliasChoices("FANFARE_IMAGES_URL", "OPENAI_BASE_URL")
    )
    images_api_key: SecretStr = Field(
        default=SecretStr(""), validation_alias=AliasChoices("FANFARE_IMAGES_API_KEY", "OPENAI_API_KEY")
    )
    images_models: Annotated[list[str], NoDecode] = ["gpt-image-1"]
    images_timeout_s: float = Field(default=180, gt=0, le=1800)

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @field_validator("node_engines", "node_devices", "images_models", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        return _split(value)

    @field_validator("sketch_faults", mode="before")
    @classmethod
    def _parse_faults(cls, value: object) -> object:
        return Faults.parse(value) if isinstance(value, str) else value

    @field_validator("node_devices")
    @classmethod
    def _are_devices(cls, names: list[str]) -> list[str]:
        for name in names:
            if not re.fullmatch(r"cpu|mps|(cuda|rocm)\d*", name):
                raise ValueError(f"{name!r} is not a device: cuda, cuda0, rocm1, mps, cpu, ...")
        return names

    @model_validator(mode="after")
    def _fill_in(self) -> "Settings":
        if not self.result_url and is_redis(self.broker_url):
            self.result_url = self.broker_url
        for url in (self.broker_url, self.result_url):
            check(url)
        if not self.result_url:
            raise ValueError("FANFARE_RESULT_URL is needed: the broker is not Redis")
        return self

    def secrets(self) -> list[str]:
        """What must not be seen in a log."""
        passwords = [unquote(part) for url in (self.broker_url, self.result_url) for part in _passwords(url)]
        return [self.images_api_key.get_secret_value(), *passwords]

    def can_reach_images_api(self) -> bool:
        """OpenAI wants a key; other servers may want none."""
        return bool(self.images_url or self.images_api_key.get_secret_value())


def _split(value: object) -> object:
    """Lists are written with commas."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _passwords(url: str) -> list[str]:
    """The passwords in a URL, or in several that are parted by semicolons."""
    return [
        credentials.partition(":")[2]
        for one in url.split(";")
        for credentials, at, _ in (one.partition("://")[2].rpartition("@"),)
        if at and credentials.partition(":")[2]
    ]


def get_model_settings() -> ModelSettings:
    """Of this process, where there need be no broker."""
    return ModelSettings()


@cache
def get_settings() -> Settings:
    """This process's settings."""
    return Settings()  # broker_url comes from the environment
