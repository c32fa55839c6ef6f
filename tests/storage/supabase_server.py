"""A Supabase Storage in this process: it answers as the real one does, also when something is wrong.

It keeps objects in memory, checks keys, tokens and limits, and has two ways to say no: Storage's errors come
with HTTP 400 and the status in the body, the gateway's have the status and no such body.
"""

import base64
import hashlib
import hmac
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from backend.storage.supabase import SupabaseStorage

BASE = "/storage/v1/"
SERVICE_KEY, ANON_KEY, FOREIGN_KEY = "test-service-role", "test-anon", "test-foreign"
UPLOAD_S = 2 * 3600
LARGEST_LIST = 1000
VALID_KEY = re.compile(r"(?:\w|[/!\-.*'() &$@=;:+,])+", re.ASCII)


@dataclass
class Answer:
    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


Work = Callable[[], Answer]
Fault = Callable[["Handler", Work], None]  # what happens instead of `handler.send(work())`


class Refused(Exception):
    """In Storage's own words."""

    def __init__(self, status: int, error: str, message: str) -> None:
        body = {"statusCode": str(status), "error": error, "message": message}
        self.answer = _json(body, 500 if status == 500 else 400)


@dataclass
class Bucket:
    file_size_limit: int | None = None
    allowed_mime_types: list[str] | None = None


@dataclass
class Stored:
    data: bytes
    content_type: str
    cache_control: str
    metadata: dict[str, Any]
    etag: str
    updated: str


class SupabaseServer:
    """One project with one bucket, `images`."""

    def __init__(self) -> None:
        self.buckets = {"images": Bucket()}
        self.objects: dict[tuple[str, str], Stored] = {}
        self.faults: list[Fault | None] = []  # for the next requests, one each; the last goes on for ever
        self.seen: list[str] = []
        self.upload_s = UPLOAD_S
        self.etag_of: Callable[[bytes], str] = lambda data: hashlib.md5(data).hexdigest()
        self.lock = threading.Lock()
        self._secret = b"the project's own"
        self._storages: list[SupabaseStorage] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"project": self}))
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def storage(self, **changed: Any) -> SupabaseStorage:
        """A storage on it, but for what is changed."""
        arguments: dict[str, Any] = {
            "bucket": "images", "prefix": "fanfare", "url": self.url, "key": SERVICE_KEY, "timeout_s": 20,
        }  # fmt: skip
        self._storages.append(SupabaseStorage(**(arguments | changed)))
        return self._storages[-1]

    @contextmanager
    def running(self) -> Iterator["SupabaseServer"]:
        thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield self
        finally:
            for storage in self._storages:
                storage.close()
            self._http.shutdown()
            thread.join()
            self._http.server_close()

    def next_fault(self) -> Fault | None:
        with self.lock:
            return self.faults.pop(0) if len(self.faults) > 1 else (self.faults or [None])[0]

    # -- what Storage does, for who came past the gateway ------------------------------------------------

    def handle(self, request: "Request") -> Answer:
        """Raises `Refused`."""
        with self.lock:
            verb, *path = request.path.split("/")
            if verb == "bucket":
                return self._describe_bucket(path[0], request.role)
            match request.method, path:
                case "GET", ["info", bucket, *name]:
                    return self._info(bucket, "/".join(name), request.role)
                case "POST", ["list", bucket]:
                    return self._list(bucket, request)
                case "POST", ["sign", bucket]:
                    return self._sign(bucket, request)
                case "GET", ["sign", bucket, *name]:
                    self._verify(request, "download", bucket, "/".join(name))
                    return self._download(bucket, "/".join(name))
                case "POST", ["upload", "sign", bucket, *name]:
                    return self._sign_upload(bucket, "/".join(name), request)
                case "PUT", ["upload", "sign", bucket, *name]:
                    return self._take_raw(bucket, "/".join(name), request)
                case "GET", [bucket, *name]:
                    self._see(bucket, request.role)
                    return self._download(bucket, "/".join(name))
                case "POST", [bucket, *name]:
                    return self._take_form(bucket, "/".join(name), request)
                case "DELETE", [bucket]:
                    return self._delete(bucket, request)
        return _json({"statusCode": 404, "error": "Not Found", "message": "Route not found"}, 404)

    def _see(self, bucket: str, role: str) -> Bucket:
        if role != "service" or bucket not in self.buckets:
            raise Refused(404, "Bucket not found", "Bucket not found")
        return self.buckets[bucket]

    def _find(self, bucket: str, name: str) -> Stored:
        if (bucket, name) not in self.objects:
            raise Refused(404, "not_found", "Object not found")
        return self.objects[bucket, name]

    def _describe_bucket(self, bucket: str, role: str) -> Answer:
        self._see(bucket, role)
        made = "2026-01-01T00:00:00.000Z"
        described = {
            "id": bucket,
            "name": bucket,
            "owner": "",
            "public": False,
            "created_at": made,
            "updated_at": made,
        }
        limits = {"file_size_limit": None, "allowed_mime_types": None}
        return _json(described | limits)

    def _info(self, bucket: str, name: str, role: str) -> Answer:
        if bucket not in self.buckets:
            raise Refused(404, "Bucket not found", "Bucket not found")
        if role != "service":  # a policy hides the row
            raise Refused(404, "not_found", "Object not found")
        found = self._find(bucket, name)
        return _json(
            {
                "id": "0", "name": name, "version": "1", "bucket_id": bucket, "size": len(found.data),
                "content_type": found.content_type, "cache_control": found.cache_control,
                "etag": f'"{found.etag}"', "metadata": found.metadata, "last_modified": found.updated,
                "created_at": found.updated,
            }
        )  # fmt: skip

    def _download(self, bucket: str, name: str) -> Answer:
        found = self._find(bucket, name)
        headers = {"Content-Type": found.content_type, "Cache-Control": found.cache_control}
        return Answer(200, found.data, headers)

    def _take_form(self, bucket: str, name: str, request: "Request") -> Answer:
        fields = request.form()
        content_type, data = fields["file"]
        cache = f"max-age={fields['cacheControl'][1].decode()}"
        metadata = json.loads(fields["metadata"][1]) if "metadata" in fields else {}
        return self._take(bucket, name, request, data, content_type, cache, metadata)

    def _take_raw(self, bucket: str, name: str, request: "Request") -> Answer:
        claims = self._verify(request, "upload", bucket, name)
        metadata = json.loads(base64.b64decode(request.headers.get("X-Metadata", "e30=")))
        request.role, request.headers["x-upsert"] = "service", str(claims["upsert"]).lower()
        cache = request.headers.get("Cache-Control", "no-cache")
        content_type = request.headers.get("Content-Type", "application/octet-stream")
        return self._take(bucket, name, request, request.body, content_type, cache, metadata)

    def _take(
        self, bucket: str, name: str, request: "Request", data: bytes, content_type: str, cache: str,
        metadata: dict[str, Any],
    ) -> Answer:  # fmt: skip
        limits = self._see(bucket, "service")
        if not VALID_KEY.fullmatch(name):
            raise Refused(400, "InvalidKey", f"Invalid key: {name}")
        if request.role != "service":
            raise Refused(403, "Unauthorized", "new row violates row-level security policy")
        if limits.allowed_mime_types and content_type not in limits.allowed_mime_types:
            raise Refused(415, "invalid_mime_type", f"mime type {content_type} is not supported")
        if limits.file_size_limit is not None and len(data) > limits.file_size_limit:
            raise Refused(413, "Payload too large", "The object exceeded the maximum allowed size")
        if (bucket, name) in self.objects and request.headers.get("x-upsert") != "true":
            raise Refused(409, "Duplicate", "The resource already exists")
        updated = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self.objects[bucket, name] = Stored(data, content_type, cache, metadata, self.etag_of(data), updated)
        return _json({"Id": "0", "Key": f"{bucket}/{name}"})

    def _delete(self, bucket: str, request: "Request") -> Answer:
        """Says which were there. Those that a policy hides were not."""
        names = request.json()["prefixes"]
        if not 1 <= len(names) <= 1000:
            raise Refused(400, "Error", "body/prefixes must NOT have fewer than 1 items")
        own = request.role == "service"
        gone = [name for name in names if own and (bucket, name) in self.objects]
        for name in gone:
            self.objects.pop((bucket, name), None)
        return _json([{"name": name} for name in gone])

    def _list(self, bucket: str, request: "Request") -> Answer:
        """One folder; a bucket that isn't there has nothing in it."""
        wanted = request.json()
        folder = f"{wanted['prefix'].strip('/')}/".lstrip("/")
        entries: dict[str, dict[str, Any]] = {}
        for (where, name), one in self.objects.items() if request.role == "service" else ():
            if where == bucket and name.startswith(folder):
                first, slash, _ = name.removeprefix(folder).partition("/")
                entries[first + slash] = _listed(first, None if slash else one)
        start, limit = wanted["offset"], min(wanted["limit"], LARGEST_LIST)
        return _json(sorted(entries.values(), key=lambda one: str(one["name"]))[start : start + limit])

    def _sign(self, bucket: str, request: "Request") -> Answer:
        wanted = request.json()
        if not 1 <= len(wanted["paths"]) <= 1000:
            raise Refused(400, "Error", "body/paths must NOT have more than 1000 items")
        answer: list[dict[str, Any]] = []
        for name in wanted["paths"]:
            if request.role != "service" or (bucket, name) not in self.objects:
                error = "Either the object does not exist or you do not have access to it"
                answer.append({"error": error, "path": name, "signedURL": None})
                continue
            token = self._token("download", bucket, name, int(wanted["expiresIn"]))
            url = f"/object/sign/{bucket}/{name}?token={token}"
            answer.append({"error": None, "path": name, "signedURL": url})
        return _json(answer)

    def _sign_upload(self, bucket: str, name: str, request: "Request") -> Answer:
        self._see(bucket, request.role)
        upsert = request.headers.get("x-upsert") == "true"
        if (bucket, name) in self.objects and not upsert:
            raise Refused(409, "Duplicate", "The resource already exists")
        token = self._token("upload", bucket, name, self.upload_s, upsert=upsert)
        return _json({"url": f"/object/upload/sign/{bucket}/{name}?token={token}", "token": token})

    # -- tokens -------------------------------------------------------------------------------------------

    def _token(self, what: str, bucket: str, name: str, seconds: int, **claims: Any) -> str:
        now = int(time.time())
        claims |= {"what": what, "url": f"{bucket}/{name}", "iat": now, "exp": now + seconds}
        body = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
        return f"e30.{body}.{self._signature(body)}"

    def _signature(self, body: str) -> str:
        return hmac.new(self._secret, body.encode(), hashlib.sha256).hexdigest()

    def _verify(self, request: "Request", what: str, bucket: str, name: str) -> dict[str, Any]:
        _, body, signature = request.query.get("token", "..").split(".")
        if not hmac.compare_digest(self._signature(body), signature):
            raise Refused(400, "InvalidJWT", "signature verification failed")
        claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        if (claims["what"], claims["url"]) != (what, f"{bucket}/{name}"):
            raise Refused(400, "InvalidSignature", "Invalid signature")
        if claims["exp"] <= time.time():
            raise Refused(400, "InvalidJWT", '"exp" claim timestamp check failed')
        return claims


def _listed(name: str, one: Stored | None) -> dict[str, Any]:
    if one is None:
        return {"name": name, "id": None, "updated_at": None, "created_at": None, "metadata": None}
    known = {"size": len(one.data), "mimetype": one.content_type, "eTag": f'"{one.etag}"'}
    return {"name": name, "id": "0", "updated_at": one.updated, "created_at": one.updated, "metadata": known}


def _json(body: Any, status: int = 200) -> Answer:
    return Answer(status, json.dumps(body).encode(), {"Content-Type": "application/json; charset=utf-8"})


@dataclass
class Request:
    method: str
    path: str  # after BASE
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    role: str

    def json(self) -> Any:
        return json.loads(self.body)

    def form(self) -> dict[str, tuple[str, bytes]]:
        """Content type and value of each field."""
        boundary = self.headers["Content-Type"].partition("boundary=")[2].encode()
        fields = {}
        for part in self.body.split(b"--" + boundary)[1:-1]:
            head, _, value = part[2:-2].partition(b"\r\n\r\n")
            name = re.search(rb'name="([^"]+)"', head)
            kind = re.search(rb"Content-Type: (\S+)", head)
            assert name
            fields[name[1].decode()] = (kind[1].decode() if kind else "", value)
        return fields


class Handler(BaseHTTPRequestHandler):
    """The gateway, and the faults."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    project: SupabaseServer

    def answer(self) -> None:
        request = self._read()
        self.project.seen.append(f"{self.command} {self.path}")
        fault = self.project.next_fault()

        def work() -> Answer:
            return self._work(request)

        if fault:
            fault(self, work)
        else:
            self.send(work())

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815 - http.server's names

    def _read(self) -> Request:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        headers = dict(self.headers.items())
        body = self.rfile.read(int(headers.get("Content-Length") or 0))
        role = {SERVICE_KEY: "service", ANON_KEY: "anon", FOREIGN_KEY: "foreign"}.get(
            headers.get("Authorization", "").removeprefix("Bearer "), ""
        )
        return Request(self.command, unquote(parts.path.removeprefix(BASE)), query, headers, body, role)

    def _work(self, request: Request) -> Answer:
        if not self.path.startswith(BASE):
            return Answer(404, b"<html>no such page</html>", {"Content-Type": "text/html"})
        if not request.role and "token" not in request.query:
            return _json({"message": "Invalid authentication credentials"}, 401)
        if request.role == "foreign":
            return Refused(403, "Unauthorized", "Invalid Compact JWS").answer
        try:
            return self.project.handle(request)
        except Refused as exc:
            return exc.answer

    def send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in (answer.headers | {"Content-Length": str(len(answer.body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


# -- faults -----------------------------------------------------------------------------------------------


def says(status: int, body: bytes, content_type: str = "text/html") -> Fault:
    """This, whatever was asked, which isn't done."""
    return lambda handler, _work: handler.send(Answer(status, body, {"Content-Type": content_type}))


def refuses(status: int, error: str, message: str = "in Storage's words") -> Fault:
    """An error of Storage's own."""
    return lambda handler, _work: handler.send(Refused(status, error, message).answer)


def cuts_before(handler: Handler, _work: Work) -> None:
    """Hangs up, and nothing is done."""
    handler.close_connection = True


def cuts_after(handler: Handler, work: Work) -> None:
    """Hangs up when all is done."""
    work()
    handler.close_connection = True


def cuts_amid(handler: Handler, work: Work) -> None:
    """Sends half of the answer."""
    answer = work()
    handler.send_response(answer.status)
    handler.send_header("Content-Length", str(len(answer.body)))
    handler.end_headers()
    handler.wfile.write(answer.body[: len(answer.body) // 2])
    handler.close_connection = True


def garbles(handler: Handler, work: Work) -> None:
    """One bit is another one, if it is an object's."""
    answer = work()
    if answer.body and "json" not in answer.headers.get("Content-Type", ""):
        answer.body = bytes([answer.body[0] ^ 1]) + answer.body[1:]
    handler.send(answer)


def instead_of_objects(body: bytes) -> Fault:
    """Everything is right, but for the objects."""

    def fault(handler: Handler, work: Work) -> None:
        answer = work()
        if "json" not in answer.headers.get("Content-Type", ""):
            answer.body = body
        handler.send(answer)

    return fault


def drips(stop: threading.Event) -> Fault:
    """Sends a byte now and then, so that no timeout per read ever fires."""

    def fault(handler: Handler, _work: Work) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        while not stop.wait(0.05):
            try:
                handler.wfile.write(b" ")
            except OSError:
                break
        handler.close_connection = True

    return fault
