"""Fetches models from the hub: only what is loaded, only safetensors, at one commit, verified, and locked."""

import errno
import glob
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gpu_worker.engines.diffusers.catalog import COMMIT, ModelEntry
from gpu_worker.engines.diffusers.family_facts import FAMILY_FACTS
from gpu_worker.engines.diffusers.hub import (
    BRANCH,
    NotDownloaded,
    Place,
    Wanted,
    all_wanted,
    find,
    snapshot,
)
from gpu_worker.engines.diffusers.lock_file import Locked, LockedFile, UnreadableLock, read_lock, write_lock
from gpu_worker.engines.diffusers.weights import (
    INDEX,
    WITHOUT_WEIGHTS,
    UnusableFiles,
    choose,
    inspect,
    inspect_lora,
    parts,
)

if TYPE_CHECKING:
    from huggingface_hub import HfApi

ENDPOINT: Final = "https://huggingface.co"
TIMEOUT_S: Final = 30.0
SPARE_BYTES: Final = 500_000_000  # of the disk, to stay free
CHUNK: Final = 4 * 2**20
TEXTS: Final = frozenset({".json", ".txt", ".model", ".jinja"})  # configurations and tokenizers
NOT_WRITABLE: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR})
CLASSIFIER: Final = ("config.json", "preprocessor_config.json")


class DownloadFailed(Exception):
    """Something could not be fetched; the text says why, and what to do."""


@dataclass(frozen=True)
class Remote:
    """One file of a repository."""

    bytes: int
    sha256: str | None  # of large files
    git_sha1: str  # of the others: of git's own form of them


Say = Callable[[str], None]


@dataclass(frozen=True)
class Hub:
    """The hub, and where what it gives is kept."""

    cache: Path
    endpoint: str = ENDPOINT
    token: str = ""  # none: no token is sent, not even one that is stored on this machine

    @classmethod
    def of_environment(cls, cache: Path, environment: Mapping[str, str] = os.environ) -> "Hub":
        """As `HF_ENDPOINT` and `HF_TOKEN` say, which the hub's own tools read, too."""
        endpoint = environment.get("HF_ENDPOINT") or ENDPOINT
        return cls(cache, endpoint.rstrip("/"), environment.get("HF_TOKEN", "").strip())

    def download(self, wanted: Wanted, *, update: bool = False, say: Say = lambda _: None) -> Place:
        """Fetches it, unless it is here. Raises `DownloadFailed`.

        Which commit: that of the catalog, or that of the lock file, or, with `update` and the first time, the
        newest one of the main branch; it is put into the lock file once all is fetched and verified.
        """
        if wanted.local:
            raise DownloadFailed(
                f"{wanted.told} is a path of this machine, {wanted.source}: nothing to download"
            )
        if not update and (place := _here(wanted, self.cache)):
            return place
        with _in_plain_words(wanted, self.endpoint):
            self.cache.mkdir(parents=True, exist_ok=True)
            commit = self._commit(wanted, update=update)
            files = self._files(wanted, commit)
            self._fetch(wanted, commit, files, say)
            locked = self._verified(wanted, commit, files, say)
            write_lock(self.cache, wanted.key, locked)
        return find(wanted, self.cache)

    def _api(self) -> "HfApi":
        from huggingface_hub import HfApi  # of the extra `gpu`; takes a second

        return HfApi(endpoint=self.endpoint, token=self.token or False)

    def _commit(self, wanted: Wanted, *, update: bool) -> str:
        if wanted.revision:
            return wanted.revision
        locked = read_lock(self.cache).get(wanted.key)
        if locked and not update:
            return locked.revision
        commit = self._api().model_info(wanted.source, revision=BRANCH, timeout=TIMEOUT_S).sha
        if not commit or not re.fullmatch(COMMIT, commit):
            raise DownloadFailed(f"{wanted.source}: the hub doesn't say which commit {BRANCH} is")
        return commit

    def _files(self, wanted: Wanted, commit: str) -> dict[str, Remote]:
        """What is to be fetched."""
        from huggingface_hub import RepoFile, hf_hub_download

        listed = self._api().list_repo_tree(wanted.source, recursive=True, revision=commit)
        there = {
            one.path: Remote(one.size, one.lfs.sha256 if one.lfs else None, one.blob_id)
            for one in listed
            if isinstance(one, RepoFile) and _is_plain(one.path)
        }
        if wanted.kind != "pipeline":
            names = _of_lora(wanted, there) if wanted.kind == "lora" else _of_classifier(wanted, there)
        elif INDEX not in there:
            raise DownloadFailed(f"{wanted.source} has no {INDEX}: it is no pipeline as diffusers saves it")
        else:
            index = hf_hub_download(
                wanted.source,
                INDEX,
                revision=commit,
                cache_dir=self.cache,
                endpoint=self.endpoint,
                token=self.token or False,
            )
            names = of_pipeline(wanted, set(there), json.loads(Path(index).read_bytes()))
        return {name: there[name] for name in sorted(names)}

    def _fetch(self, wanted: Wanted, commit: str, files: Mapping[str, Remote], say: Say) -> None:
        from huggingface_hub import snapshot_download
        from huggingface_hub.utils.tqdm import disable_progress_bars

        if not sys.stderr.isatty():
            disable_progress_bars()  # they would fill the log
        folder = snapshot(self.cache, wanted.source, commit)
        missing = sum(one.bytes for name, one in files.items() if not (folder / name).exists())
        free = shutil.disk_usage(self.cache).free
        if missing + SPARE_BYTES > free:
            raise DownloadFailed(
                f"{wanted.told} needs {in_words(missing)}; on the disk of {self.cache} are {in_words(free)}"
            )
        say(f"{wanted.source} at {commit[:12]}: {len(files)} files, {in_words(missing)} to fetch")
        snapshot_download(
            wanted.source,
            revision=commit,
            cache_dir=self.cache,
            endpoint=self.endpoint,
            token=self.token or False,
            allow_patterns=[glob.escape(name) for name in files],
        )

    def _verified(self, wanted: Wanted, commit: str, files: Mapping[str, Remote], say: Say) -> Locked:
        folder = snapshot(self.cache, wanted.source, commit)
        say(f"verifying {len(files)} files")
        hashes = {name: _verified(folder / name, remote) for name, remote in files.items()}
        _examine(wanted, folder)
        locked = {name: LockedFile(bytes=files[name].bytes, sha256=hashes[name]) for name in files}
        return Locked(revision=commit, files=locked)


def _here(wanted: Wanted, cache: Path) -> Place | None:
    """Where a finished download of it is."""
    try:
        return find(wanted, cache) if wanted.key in read_lock(cache) else None
    except (NotDownloaded, UnreadableLock):
        return None


# -- which files -------------------------------------------------------------------------------------------


def of_pipeline(wanted: Wanted, there: Collection[str], index: Mapping[str, Any]) -> set[str]:
    """Of a repository's files those that are loaded: configurations, tokenizers, one set of weights."""
    unused = FAMILY_FACTS[wanted.family].unused if wanted.family else ()
    names = {INDEX}
    for part, (_, class_name) in parts(index, unused).items():
        inside = {name.removeprefix(f"{part}/") for name in there if name.startswith(f"{part}/")}
        inside = {name for name in inside if "/" not in name}
        texts = {name for name in inside if Path(name).suffix in TEXTS and ".index." not in name}
        names |= {f"{part}/{name}" for name in texts}
        if not str(class_name).endswith(WITHOUT_WEIGHTS):
            names |= {f"{part}/{name}" for name in _weights(wanted, part, inside)}
    return names


def _weights(wanted: Wanted, part: str, inside: Collection[str]) -> set[str]:
    found = choose(inside, wanted.variant)
    if not found:
        raise DownloadFailed(
            f"{wanted.source}: {part} has no safetensors; others can run code, and are not fetched"
        )
    if not found[0].endswith(".json"):
        return set(found)
    base, _, rest = found[0].partition(".safetensors.index")
    variant = re.escape(rest.removesuffix(".json"))
    # Both forms are in use: model.fp16-00001-of-00002.safetensors, model-00001-of-00002.fp16.safetensors
    form = rf"{re.escape(base)}(?:{variant}-\d+-of-\d+|-\d+-of-\d+{variant})\.safetensors"
    return {*found, *(name for name in inside if re.fullmatch(form, name))}


def _of_lora(wanted: Wanted, there: Collection[str]) -> set[str]:
    if not wanted.file or wanted.file not in there:
        raise DownloadFailed(f"{wanted.source} has no file {wanted.file}")
    return {wanted.file}


def _of_classifier(wanted: Wanted, there: Collection[str]) -> set[str]:
    names = {*CLASSIFIER, "model.safetensors"}
    if missing := names - set(there):
        raise DownloadFailed(f"{wanted.source} is no image classifier as a node loads it: no {min(missing)}")
    return names


def _is_plain(path: str) -> bool:
    return not path.startswith("/") and ".." not in path.split("/")


# -- whether they are what they should be ------------------------------------------------------------------


def _verified(file: Path, remote: Remote) -> str:
    """The file's sha256. Raises `DownloadFailed`, and deletes the file, where it isn't what the hub has."""
    if not file.is_file():
        raise DownloadFailed(f"{file.name} was not fetched; try again")
    sha256, git = hashlib.sha256(), hashlib.sha1(usedforsecurity=False)
    git.update(f"blob {file.stat().st_size}\0".encode())
    with file.open("rb") as opened:
        while chunk := opened.read(CHUNK):
            sha256.update(chunk)
            if remote.sha256 is None:
                git.update(chunk)
    expected, actual = (
        (remote.sha256, sha256.hexdigest()) if remote.sha256 else (remote.git_sha1, git.hexdigest())
    )
    if actual != expected:
        file.resolve().unlink(missing_ok=True)
        file.unlink(missing_ok=True)
        raise DownloadFailed(f"{file.name} was damaged on the way, and is deleted; try again")
    return sha256.hexdigest()


def _examine(wanted: Wanted, folder: Path) -> None:
    try:
        if wanted.kind == "pipeline" and wanted.family:
            inspect(folder, wanted.family, wanted.variant)
        elif wanted.kind == "lora" and wanted.file:
            inspect_lora(folder / wanted.file)
    except UnusableFiles as exc:
        raise DownloadFailed(f"{wanted.told} was fetched, but can't be used: {exc}") from exc


# -- errors ------------------------------------------------------------------------------------------------


@contextmanager
def _in_plain_words(wanted: Wanted, endpoint: str) -> Iterator[None]:
    """The hub's and the disk's errors as `DownloadFailed`."""
    import httpx2
    from huggingface_hub import errors

    page = f"{endpoint}/{wanted.source}"
    try:
        yield
    except errors.GatedRepoError as exc:
        raise DownloadFailed(
            f"{wanted.source} is gated: accept its conditions at {page} and set HF_TOKEN"
        ) from exc
    except errors.RepositoryNotFoundError as exc:
        raise DownloadFailed(
            f"{page}: there is no such repository, or it is private; then set HF_TOKEN"
        ) from exc
    except errors.RevisionNotFoundError as exc:
        raise DownloadFailed(f"{page} has no commit {wanted.revision or BRANCH}") from exc
    except UnreadableLock as exc:
        raise DownloadFailed(str(exc)) from exc
    except errors.OfflineModeIsEnabled as exc:
        raise DownloadFailed("HF_HUB_OFFLINE is set: unset it to download") from exc
    except (errors.HfHubHTTPError, httpx2.HTTPError, OSError) as exc:
        raise DownloadFailed(_why(exc, page)) from exc


def _why(exc: Exception, page: str) -> str:
    """In plain words; without addresses of other hosts, which may carry signatures."""
    if isinstance(exc, OSError) and exc.errno in {errno.ENOSPC, errno.EDQUOT}:
        return "the disk is full; what is fetched is kept, and the next try goes on from there"
    if isinstance(exc, OSError) and exc.errno in NOT_WRITABLE:
        return f"the cache can't be written: {exc.filename}"
    response = getattr(exc, "response", None)
    if response is not None and response.status_code in {401, 403}:
        return f"{page}: the hub says no ({response.status_code}); is HF_TOKEN right?"
    if response is not None:
        return f"{page}: the hub answers {response.status_code}; try again later"
    return f"{page} can't be fetched ({type(exc).__name__}); what is fetched is kept: try again"


def in_words(size: int) -> str:
    """A number of bytes for people."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def fetch(entry: ModelEntry, hub: Hub, *, update: bool = False, say: Say = lambda _: None) -> list[Place]:
    """Fetches all that an entry names and that is not a path. Raises `DownloadFailed`."""
    return [hub.download(wanted, update=update, say=say) for wanted in all_wanted(entry) if not wanted.local]
