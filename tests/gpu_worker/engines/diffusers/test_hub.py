"""Downloads from a hub on loopback, and finding what is there without any network. Runs without torch."""

import errno
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gpu_worker.engines.diffusers import download as downloading
from gpu_worker.engines.diffusers.catalog import Catalog, LoraEntry, ModelEntry, Safety
from gpu_worker.engines.diffusers.download import DownloadFailed, of_pipeline
from gpu_worker.engines.diffusers.download import Hub as Client
from gpu_worker.engines.diffusers.hub import (
    ChangedFolder,
    NotDownloaded,
    UnknownModel,
    all_wanted,
    as_served,
    default_cache,
    find,
    resolve,
    resolve_lora,
    served,
    wanted_checker,
    wanted_lora,
    wanted_of,
)
from gpu_worker.engines.diffusers.lock_file import NAME, UnreadableLock, read_lock
from gpu_worker.engines.diffusers.weights import digest
from tests.gpu_worker.engines.diffusers.hub_server import COMMIT, NEWER, Hub, Repository, running_hub
from tests.gpu_worker.engines.diffusers.small_models import LORA, SDXL, safetensors, sdxl_files, write
from tests.services import free_port, missing

SOURCE = "owner/name"
UNET = "unet/diffusion_pytorch_model.safetensors"
ENTRY = ModelEntry(alias="mine", source=SOURCE, family="sdxl", license="MIT")
CATALOG = Catalog(models={"mine": ENTRY})


@pytest.fixture(scope="module", autouse=True)
def the_hubs_library() -> None:
    if importlib.util.find_spec("huggingface_hub") is None:
        missing("no huggingface_hub: the extra `gpu` is not installed")
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as hub:
        hub.repositories[SOURCE] = Repository({COMMIT: sdxl_files()})
        yield hub


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def client(hub: Hub, cache: Path) -> Client:
    return Client(cache, hub.url)


def failure(client: Client, entry: ModelEntry = ENTRY) -> str:
    with pytest.raises(DownloadFailed) as caught:
        client.download(wanted_of(entry))
    with pytest.raises(NotDownloaded):
        resolve(entry, client.cache)
    return str(caught.value)


# -- a download ------------------------------------------------------------------------------------------


def test_a_model_is_fetched_pinned_and_found_without_the_network(hub: Hub, client: Client) -> None:
    said: list[str] = []
    place = client.download(wanted_of(ENTRY), say=said.append)
    assert place.revision == COMMIT
    assert resolve(ENTRY, client.cache) == place.path
    assert (place.path / UNET).read_bytes() == sdxl_files()[UNET]
    assert said[0].startswith(f"{SOURCE} at {COMMIT[:12]}: 14 files")
    asked = len(hub.asked)
    assert client.download(wanted_of(ENTRY)) == place
    (entry,) = served(CATALOG, ["mine"], client.cache)
    assert entry.revision == COMMIT
    assert len(hub.asked) == asked


def test_the_hubs_own_library_finds_it_in_the_same_place(client: Client) -> None:
    from huggingface_hub import snapshot_download

    place = client.download(wanted_of(ENTRY))
    found = snapshot_download(SOURCE, revision=COMMIT, cache_dir=client.cache, local_files_only=True,
                              allow_patterns=list(sdxl_files()))  # fmt: skip
    assert Path(found) == place.path


def test_only_what_is_loaded_is_fetched(hub: Hub, client: Client) -> None:
    fp16 = sdxl_files("F16", "fp16")
    others = {
        "README.md": b"#",
        "run.py": b"",
        "sd_xl_base_1.0.safetensors": b"all in one",
        "unet/diffusion_pytorch_model.bin": b"pickle",
        "unet/modeling.py": b"",
        "unet/model.onnx": b"onnx",
        "vae_1_0/config.json": b"{}",
        "unet/sub/config.json": b"{}",
    }
    hub.repositories[SOURCE] = Repository({COMMIT: {**sdxl_files(), **fp16, **others}})
    place = client.download(wanted_of(ENTRY.model_copy(update={"variant": "fp16"})))
    assert hub.fetched() == set(fp16)
    assert {str(path.relative_to(place.path)) for path in place.path.rglob("*") if path.is_file()} == set(
        fp16
    )


@pytest.mark.parametrize("form", ["model.fp16-{}.safetensors", "model-{}.fp16.safetensors"])
def test_all_shards_of_the_variant_are_fetched_and_no_others(form: str) -> None:
    shards = {f"text_encoder/{form.format(n)}" for n in ("00001-of-00002", "00002-of-00002")}
    index = "text_encoder/model.safetensors.index.fp16.json"
    others = {"text_encoder/model-00001-of-00001.safetensors", "text_encoder/model.safetensors.index.json"}
    parts = {"text_encoder": SDXL["text_encoder"]}
    wanted = replace(wanted_of(ENTRY), variant="fp16")
    assert of_pipeline(wanted, {*shards, index, *others}, parts) == {"model_index.json", index, *shards}


def test_a_commit_that_the_catalog_names_is_the_one_that_is_fetched(hub: Hub, client: Client) -> None:
    hub.repositories[SOURCE].commits[NEWER] = sdxl_files("F16")
    pinned = ENTRY.model_copy(update={"revision": COMMIT})
    assert client.download(wanted_of(pinned)).revision == COMMIT
    assert as_served(pinned, client.cache).revision == COMMIT


def test_the_lock_file_stays_with_its_commit_until_an_update(hub: Hub, client: Client) -> None:
    first = client.download(wanted_of(ENTRY))
    hub.repositories[SOURCE].commits[NEWER] = sdxl_files("F16")
    shutil.rmtree(first.path)  # as if somebody had cleaned up
    assert client.download(wanted_of(ENTRY)).revision == COMMIT
    assert client.download(wanted_of(ENTRY), update=True).revision == NEWER
    assert as_served(ENTRY, client.cache).revision == NEWER


def test_a_commit_may_be_written_into_the_catalog_afterwards(client: Client) -> None:
    place = client.download(wanted_of(ENTRY))
    (place.path / "tokenizer/vocab.json").unlink()
    with pytest.raises(NotDownloaded, match="not downloaded completely"):
        resolve(ENTRY.model_copy(update={"revision": COMMIT}), client.cache)


def test_the_lock_file_holds_what_was_fetched(client: Client) -> None:
    client.download(wanted_of(ENTRY))
    locked = read_lock(client.cache)[SOURCE]
    assert locked.revision == COMMIT
    assert set(locked.files) == set(sdxl_files())
    assert locked.files[UNET].bytes == len(sdxl_files()[UNET])
    (client.cache / NAME).write_text("{")
    with pytest.raises(UnreadableLock, match="delete it"):
        read_lock(client.cache)


def test_two_who_write_the_lock_file_lose_nothing(hub: Hub, cache: Path) -> None:
    code = """if True:
        import sys
        from pathlib import Path
        from gpu_worker.engines.diffusers.lock_file import Locked, write_lock
        for n in range(40):
            write_lock(Path(sys.argv[1]), f"{sys.argv[2]}/{n}", Locked(revision="0" * 40, files={}))"""
    cache.mkdir()
    both = [subprocess.Popen([sys.executable, "-c", code, str(cache), name]) for name in ("a", "b")]
    assert [one.wait(60) for one in both] == [0, 0]
    assert len(read_lock(cache)) == 80


# -- LoRAs and checkers ----------------------------------------------------------------------------------


def test_a_lora_and_a_checker_are_fetched_by_themselves(hub: Hub, client: Client) -> None:
    lora = {"fine.safetensors": safetensors(LORA), "other.safetensors": safetensors(LORA, 1)}
    checker = {
        "config.json": b"{}", "preprocessor_config.json": b"{}", "model.safetensors": safetensors(LORA, 2),
        "pytorch_model.bin": b"",
    }  # fmt: skip
    hub.repositories["owner/lora"] = Repository({NEWER: lora})
    hub.repositories["owner/checker"] = Repository({NEWER: checker})
    entry = ENTRY.model_copy(
        update={
            "loras": {"fine": LoraEntry(source="owner/lora", file="fine.safetensors")},
            "safety": Safety(mode="flag", source="owner/checker"),
        }
    )
    with pytest.raises(NotDownloaded, match="LoRA fine is not downloaded: fanfare-node download mine"):
        resolve_lora(entry, "fine", client.cache)
    for wanted in all_wanted(entry):
        client.download(wanted)
    assert resolve_lora(entry, "fine", client.cache).read_bytes() == lora["fine.safetensors"]
    assert "other.safetensors" not in hub.fetched()
    assert "pytorch_model.bin" not in hub.fetched()
    here = as_served(entry, client.cache)
    assert here.loras["fine"].revision == NEWER
    assert wanted_checker(entry) is not None


def test_a_lora_that_is_not_here_is_left_out_unless_it_is_needed(client: Client) -> None:
    client.download(wanted_of(ENTRY))
    loras = {"fine": LoraEntry(source="owner/lora", file="fine.safetensors")}
    entry = ENTRY.model_copy(update={"loras": loras})
    assert as_served(entry, client.cache).loras == {}
    with pytest.raises(NotDownloaded, match="the LoRA fine"):
        as_served(entry.model_copy(update={"loras_always": ("fine",)}), client.cache)


def test_a_file_that_is_no_lora_is_not_locked(hub: Hub, client: Client) -> None:
    hub.repositories["owner/lora"] = Repository({NEWER: {"fine.safetensors": b"<html>"}})
    loras = {"fine": LoraEntry(source="owner/lora", file="fine.safetensors")}
    with pytest.raises(DownloadFailed, match="the LoRA fine was fetched, but can't be used"):
        client.download(wanted_lora(ENTRY.model_copy(update={"loras": loras}), "fine"))
    assert read_lock(client.cache) == {}


# -- bad days --------------------------------------------------------------------------------------------


def test_a_download_that_breaks_off_goes_on(hub: Hub, client: Client) -> None:
    hub.cut_off[UNET] = 1
    assert client.download(wanted_of(ENTRY)).revision == COMMIT


def test_a_download_that_always_breaks_off_is_told_and_the_next_one_succeeds(
    hub: Hub, client: Client
) -> None:
    hub.cut_off[UNET] = 99
    assert "what is fetched is kept: try again" in failure(client)
    hub.cut_off.clear()
    assert client.download(wanted_of(ENTRY)).revision == COMMIT


@pytest.mark.parametrize("file", [UNET, "unet/config.json"])
def test_a_file_that_is_damaged_on_the_way_is_deleted(hub: Hub, client: Client, file: str) -> None:
    hub.repositories[SOURCE].commits[COMMIT] = {**sdxl_files(), "unet/config.json": b'{"only": "here"}'}
    hub.damaged.add(file)
    assert failure(client).startswith(f"{Path(file).name} was damaged on the way")
    hub.damaged.clear()
    assert client.download(wanted_of(ENTRY)).revision == COMMIT


def test_a_gated_model_needs_a_token_whose_owner_agreed(hub: Hub, client: Client) -> None:
    hub.repositories[SOURCE].gated = True
    assert failure(client) == (
        f"{SOURCE} is gated: accept its conditions at {hub.url}/{SOURCE} and set HF_TOKEN"
    )
    assert "is gated" in failure(replace(client, token="hf_of_another"))
    assert replace(client, token="hf_right").download(wanted_of(ENTRY)).revision == COMMIT


def test_no_token_is_sent_but_the_one_of_the_environment(
    hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_set_but_not_given")
    Client(cache, hub.url).download(wanted_of(ENTRY))
    assert hub.tokens == set()
    chosen = Client.of_environment(cache, {"HF_TOKEN": " hf_a ", "HF_ENDPOINT": "https://mirror.example/"})
    assert (chosen.token, chosen.endpoint) == ("hf_a", "https://mirror.example")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"repositories": {}}, "there is no such repository, or it is private; then set HF_TOKEN"),
        ({"status": 500}, "the hub answers 500; try again later"),
        ({"status": 429}, "the hub answers 429; try again later"),
        ({"status": 403}, "the hub says no (403); is HF_TOKEN right?"),
    ],
)
def test_what_the_hub_says_is_told(hub: Hub, client: Client, change: dict[str, object], text: str) -> None:
    for name, value in change.items():
        setattr(hub, name, value)
    assert text in failure(client)


def test_a_private_repository_is_told(hub: Hub, client: Client) -> None:
    hub.repositories[SOURCE].private = True
    assert "or it is private" in failure(client)


def test_a_commit_that_does_not_exist_is_told(client: Client) -> None:
    assert failure(client, ENTRY.model_copy(update={"revision": NEWER})).endswith(f"has no commit {NEWER}")


def test_a_hub_that_cannot_be_reached_is_told(cache: Path) -> None:
    client = Client(cache, f"http://127.0.0.1:{free_port()}")
    assert "can't be fetched (ConnectError)" in failure(client)


def test_a_repository_that_is_no_pipeline_is_told(hub: Hub, client: Client) -> None:
    hub.repositories[SOURCE] = Repository({COMMIT: {"flux1-dev.safetensors": b"all in one"}})
    assert "has no model_index.json" in failure(client)
    assert not hub.fetched()


def test_a_repository_with_pickles_only_is_not_fetched(hub: Hub, client: Client) -> None:
    files = sdxl_files()
    files["unet/diffusion_pytorch_model.bin"] = files.pop(UNET)
    hub.repositories[SOURCE] = Repository({COMMIT: files})
    assert "unet has no safetensors" in failure(client)
    assert hub.fetched() == {"model_index.json"}


def test_a_model_of_another_family_is_fetched_in_vain_and_not_locked(hub: Hub, client: Client) -> None:
    index = json.dumps({**SDXL, "_class_name": "FluxPipeline"}).encode()
    hub.repositories[SOURCE] = Repository({COMMIT: {**sdxl_files(), "model_index.json": index}})
    assert "not of the family sdxl" in failure(client)


def test_a_disk_that_is_too_small_is_told_before(
    hub: Hub, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloading, "SPARE_BYTES", 10**18)
    assert "the disk of" in failure(client)
    assert hub.fetched() == {"model_index.json"}


def test_a_disk_that_fills_up_is_told() -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert downloading._why(full, "page").startswith("the disk is full; what is fetched is kept")


def test_a_cache_that_cannot_be_written_is_told(hub: Hub, cache: Path) -> None:
    cache.write_text("a file")
    with pytest.raises(DownloadFailed, match="the cache can't be written"):
        Client(cache, hub.url).download(wanted_of(ENTRY))


# -- what is on this machine -----------------------------------------------------------------------------


def test_what_others_downloaded_is_told_but_not_trusted(client: Client) -> None:
    client.download(wanted_of(ENTRY))
    (client.cache / NAME).unlink()
    references = client.cache / "models--owner--name/refs"
    references.mkdir(exist_ok=True)
    (references / "main").write_text(COMMIT)
    with pytest.raises(NotDownloaded, match=f'set its revision = "{COMMIT}" in the catalog'):
        resolve(ENTRY, client.cache)
    assert resolve(ENTRY.model_copy(update={"revision": COMMIT}), client.cache).name == COMMIT


def test_a_folder_is_served_under_the_digest_of_its_content(tmp_path: Path, cache: Path) -> None:
    folder = write(tmp_path / "model", sdxl_files())
    entry = ENTRY.model_copy(update={"source": str(folder)})
    assert as_served(entry, cache).revision == digest(folder)
    pinned = entry.model_copy(update={"revision": digest(folder)})
    assert resolve(pinned, cache) == folder
    (folder / "unet/config.json").write_text('{"other": 1}')
    with pytest.raises(ChangedFolder, match="has changed"):
        resolve(pinned, cache)
    with pytest.raises(DownloadFailed, match="nothing to download"):
        Client(cache).download(wanted_of(entry))


def test_what_is_served(tmp_path: Path, cache: Path) -> None:
    here = ENTRY.model_copy(update={"alias": "here", "source": str(write(tmp_path / "m", sdxl_files()))})
    catalog = Catalog(models={"mine": ENTRY, "here": here})
    assert [entry.alias for entry in served(catalog, [], cache)] == ["here"]
    assert [entry.alias for entry in served(catalog, ["here"], cache)] == ["here"]
    with pytest.raises(NotDownloaded, match="fanfare-node download mine"):
        served(catalog, ["mine"], cache)
    assert [entry.revision for entry in served(catalog, ["mine"], cache, download=True)] == [None]
    with pytest.raises(UnknownModel, match="no model theirs; there are: mine, here"):
        served(catalog, ["theirs"], cache)


def test_the_cache_is_that_of_all_the_hubs_tools(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path)}
    for extra in ({"HF_HUB_CACHE": "/a"}, {"HF_HOME": "/b"}, {"XDG_CACHE_HOME": "/c"}):
        code = "from huggingface_hub import constants; print(constants.HF_HUB_CACHE)"
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**environment, **extra},
            capture_output=True,
            text=True,
            check=True,
        )
        assert str(default_cache(extra)) == done.stdout.strip()


def test_find_says_what_is_missing(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(NotDownloaded, match="the model is not there"):
        find(wanted_of(ENTRY.model_copy(update={"source": str(tmp_path / "gone")})), cache)
