"""boto3's clients, one for each address under which the bucket is seen."""

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 20  # for each read; the total is the verb's own
ATTEMPTS = 4


@dataclass(frozen=True)
class Credentials:
    """Empty: boto3's own search (environment, profile, instance role)."""

    access_key_id: str = ""
    secret_access_key: str = field(default="", repr=False)
    session_token: str = field(default="", repr=False)


class S3Clients:
    """Opened at first use. Clients may be shared by threads, opening them may not: one at a time."""

    def __init__(self, bucket: str, region: str, credentials: Credentials) -> None:
        self._bucket = bucket
        self._region = region
        self._credentials = credentials
        self._session: boto3.session.Session | None = None
        self._clients: dict[str | None, S3Client] = {}
        self._opening = threading.Lock()

    def at(self, endpoint_url: str | None) -> "S3Client":
        """The client for this address; None: Amazon's own. Raises what boto3 raises."""
        with self._opening:
            if endpoint_url not in self._clients:
                config = _config(self._bucket, endpoint_url)
                client = self._get_session().client("s3", endpoint_url=endpoint_url, config=config)
                self._clients[endpoint_url] = client
            return self._clients[endpoint_url]

    def end_soon(self) -> bool:
        """Whether the credentials are of the temporary kind: what they signed ends with them."""
        with self._opening:
            found = self._get_session().get_credentials()
        return bool(found and found.token)

    def _get_session(self) -> boto3.session.Session:
        if self._session is None:
            self._session = boto3.session.Session(
                aws_access_key_id=self._credentials.access_key_id or None,
                aws_secret_access_key=self._credentials.secret_access_key or None,
                aws_session_token=self._credentials.session_token or None,
                region_name=self._region,
            )
        return self._session


def _config(bucket: str, endpoint_url: str | None) -> Config:
    """Other servers than Amazon's want the bucket in the path, and stumble over checksums in trailers.

    At Amazon the bucket is in the host's name, which a certificate doesn't cover where it has dots.
    """
    in_path = endpoint_url is not None or "." in bucket
    return Config(
        signature_version="s3v4",
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        max_pool_connections=32,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        s3={"addressing_style": "path" if in_path else "virtual"},
        request_checksum_calculation="when_required" if endpoint_url else "when_supported",
        response_checksum_validation="when_supported",
    )
