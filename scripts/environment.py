"""Makes the virtual environment that the scripts run in, and prints the folder of its programs.

Run by scripts/setup, before anything is installed: the standard library is all there is. A second run that
finds everything as it should be ends at once; one that was cut off is made good by the next.

Fanfare itself is not built: a `.pth` file points at the checkout, so that this works for a checkout which
belongs to somebody else or can't be written to, and every change to the code counts at once.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
FORMAT = 1  # raised when what is done here changes in a way that old environments must be made anew

MARKER = ".made-by-fanfare"  # only a folder that holds this is ever emptied
LOCK = ".setup.lock"
STAMP = ".setup.json"

NO_VENV = f"""{sys.executable} can't make virtual environments. Install what it lacks
(Debian, Ubuntu: apt-get install python3-venv), or the virtualenv package, or uv."""


class CannotSetUp(Exception):
    """What is missing, in words for the one who ran the script."""


def say(text: str) -> None:
    """To stderr: stdout is for the scripts that call."""
    print(text, file=sys.stderr, flush=True)


# -- what is wanted -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wanted:
    """What an environment must hold to be ready."""

    project: dict[str, Any]  # the [project] table of pyproject.toml
    extras: frozenset[str]
    digest: str  # of all that decides what is installed

    @property
    def requirements(self) -> list[str]:
        """Of the project and of the extras."""
        optional = self.project["optional-dependencies"]
        return [
            *self.project["dependencies"],
            *(line for extra in sorted(self.extras) for line in optional[extra]),
        ]


def read_wanted(extras: Iterable[str]) -> Wanted:
    """Reads pyproject.toml and constraints.txt."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    keys = ("version", "dependencies", "optional-dependencies", "scripts")
    parts = [
        FORMAT,
        str(ROOT),
        platform.machine(),
        CONSTRAINTS.read_text("utf-8"),
        [project[key] for key in keys],
    ]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return Wanted(project, frozenset(extras), digest)


# -- where it is kept ---------------------------------------------------------------------------------


def choose_folder(wanted: Wanted) -> Path:
    """The first place where the environment is ready; or else the first where it can be made."""
    places = list(_places())
    for folder in places:
        if is_ready(folder, wanted):
            return folder
    for folder in places:
        if _can_be_made(folder):
            if folder != places[0]:
                say(f"{places[0]} can't be used here; setting up in {folder}.")
            return folder
    raise CannotSetUp(
        f"No folder for the virtual environment can be written to: {', '.join(map(str, places))}"
    )


def _places() -> Iterator[Path]:
    yield ROOT / ".venv"
    name = f"venv-{hashlib.sha256(str(ROOT).encode()).hexdigest()[:12]}"
    cache = user_cache()
    if cache:
        yield cache / "fanfare" / name
    yield Path(tempfile.gettempdir()) / f"fanfare-{os.geteuid()}" / name


def user_cache() -> Path | None:
    """The user's own cache folder; None where there is no home, or it is somebody else's (sudo)."""
    given = os.environ.get("XDG_CACHE_HOME") or ""
    home = os.environ.get("HOME") or ""
    cache = Path(given) if given.startswith("/") else Path(home) / ".cache"
    if not cache.is_absolute():
        return None
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    mine = cache.stat().st_uid == os.geteuid()
    return cache if mine and os.access(cache, os.W_OK) else None


def _can_be_made(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o755 if folder.parent == ROOT else 0o700)
        found = os.listdir(folder)  # noqa: PTH208 - names are enough
    except OSError:
        return False
    if found and MARKER not in found and LOCK not in found:
        return False  # made by somebody for himself
    # In a folder that all may write to, another user may have been there first.
    mine = folder.parent == ROOT or folder.parent.stat().st_uid == os.geteuid()
    return mine and os.access(folder, os.W_OK)


# -- whether it is ready ------------------------------------------------------------------------------


def read_stamp(folder: Path) -> dict[str, Any]:
    """What the last set-up that came to its end has left; {} if none did, or the interpreter is gone."""
    try:
        stamp: dict[str, Any] = json.loads((folder / STAMP).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    python = program(folder, "python")
    trusted = folder.parent == ROOT or folder.stat().st_uid == os.geteuid()
    same = stamp.get("folder") == str(folder) and stamp.get("interpreter") == os.path.realpath(python)
    asked_for = not os.environ.get("FANFARE_PYTHON") or stamp.get("version") == platform.python_version()
    return stamp if trusted and same and asked_for and os.access(python, os.X_OK) else {}


def is_ready(folder: Path, wanted: Wanted) -> bool:
    """Whether nothing need be done."""
    stamp = read_stamp(folder)
    return stamp.get("digest") == wanted.digest and wanted.extras <= set(stamp["extras"])


def program(folder: Path, name: str) -> Path:
    """A program of the environment."""
    return folder / "bin" / name


# -- making it ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One set-up at a time; the system takes the lock from one that dies."""
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another set-up is running; waiting for it ...")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def make_ready(folder: Path, wanted: Wanted) -> None:
    """Brings the environment to what is wanted, from whatever state it is in."""
    began = time.monotonic()
    stamp = read_stamp(folder)
    if stamp:  # in place: what runs from it goes on
        wanted = Wanted(wanted.project, wanted.extras | set(stamp["extras"]), wanted.digest)
        (folder / STAMP).unlink()
    else:
        empty(folder)
        (folder / MARKER).touch()
        create(folder)
    say(f"Setting up in {folder} (seconds where packages are cached, a minute or two where they are not) ...")
    install_requirements(folder, wanted)
    install_project(folder, wanted)
    write_stamp(folder, wanted)
    say(f"Set up in {time.monotonic() - began:.0f} s.")


def empty(folder: Path) -> None:
    """Leaves the lock, which is held, and the marker."""
    for entry in folder.iterdir():
        if entry.name in (LOCK, MARKER):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def write_stamp(folder: Path, wanted: Wanted) -> None:
    """The last step, whole or not at all."""
    stamp = {
        "folder": str(folder),
        "interpreter": os.path.realpath(program(folder, "python")),
        "version": platform.python_version(),
        "digest": wanted.digest,
        "extras": sorted(wanted.extras),
    }
    beside = folder / f"{STAMP}.new"
    beside.write_text(json.dumps(stamp), "utf-8")
    beside.replace(folder / STAMP)


def create(folder: Path) -> None:
    """An environment with pip, by whichever way this machine has."""
    reports = []
    for commands in _ways_to_create(folder):
        report = _run_all(commands)
        if report is None:
            return
        reports.append(report)
        empty(folder)
    if not _install_venv_module():
        raise CannotSetUp("\n".join([*reports, "", NO_VENV]))
    create(folder)


def _ways_to_create(folder: Path) -> Iterator[list[list[str]]]:
    """Each is a few commands. Debian's Python comes without the part that puts pip into an environment."""
    python, path = [sys.executable, "-I", "-m"], str(folder)
    yield [[*python, "venv", path]]
    yield [[*python, "virtualenv", path]]
    if uv := shutil.which("uv"):
        yield [[uv, "venv", "--seed", "--allow-existing", "--python", sys.executable, path]]
    into = ["--python", str(program(folder, "python")), "install", "--quiet", "pip"]
    yield [[*python, "venv", "--without-pip", path], [*python, "pip", *into]]


def _run_all(commands: list[list[str]]) -> str | None:
    """None if all went well, else what the one that failed has said."""
    for command in commands:
        done = subprocess.run(
            command, check=False, env=installer_environment(), capture_output=True, text=True
        )
        if done.returncode != 0:
            return f"$ {shlex.join(command)}\n{done.stdout}{done.stderr}".rstrip()
    return None


def _install_venv_module() -> bool:
    """In CI, as root, on Debian: gets the part of Python that Debian ships apart. True if it is new."""
    apt = shutil.which("apt-get")
    lacking = importlib.util.find_spec("ensurepip") is None
    if not (lacking and apt and os.environ.get("CI") and os.geteuid() == 0):
        return False
    for arguments in (["update", "-qq"], ["install", "-y", "-qq", "python3-venv"]):
        subprocess.run([apt, *arguments], check=False, stdout=sys.stderr)
    importlib.invalidate_caches()
    return importlib.util.find_spec("ensurepip") is not None


# -- installing ---------------------------------------------------------------------------------------


def install_requirements(folder: Path, wanted: Wanted) -> None:
    """By uv, which takes a third of the time; by pip where uv can't be had or doesn't manage."""
    if not wanted.requirements:
        return
    listed = folder / "requirements.txt"
    listed.write_text("\n".join([*wanted.requirements, ""]), "utf-8")
    what = ["-q", "-r", str(listed), "-c", str(CONSTRAINTS)]
    python = str(program(folder, "python"))
    pip = [python, "-I", "-m", "pip", "install", "--no-input"]
    env = installer_environment()
    try:
        _run([*pip, "-qq", "-c", str(CONSTRAINTS), "uv"], env)
        uv = [str(program(folder, "uv")), "pip", "install", "--python", python, *what]
        _run_uv(uv, env | uv_settings(python, env), with_torch="gpu" in wanted.extras)
    except subprocess.CalledProcessError:
        say("uv did not manage; trying pip ...")
        _run([*pip, *what], env)


def _run_uv(command: list[str], env: dict[str, str], *, with_torch: bool) -> None:
    """Without a GPU torch's own index is asked for the small build; who can't reach it gets the large one."""
    if with_torch and wants_torch_for_cpu(env):
        try:
            _run([*command, "--torch-backend=cpu"], env)
        except subprocess.CalledProcessError:
            say("The build of torch for CPUs can't be had; taking the ordinary one (some gigabytes) ...")
        else:
            return
    _run(command, env)


def wants_torch_for_cpu(env: dict[str, str]) -> bool:
    """On Linux the ordinary torch brings all of CUDA. Whoever has chosen a torch himself gets that one."""
    chosen = env.get("UV_TORCH_BACKEND") or _has_torch_of_its_own(env.get("UV_FIND_LINKS", ""))
    return sys.platform == "linux" and not chosen and not _has_nvidia_gpu()


def _has_nvidia_gpu() -> bool:
    return Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi") is not None


def _has_torch_of_its_own(find_links: str) -> bool:
    """Whether a folder of wheels holds a torch for this Python. What is no folder might."""
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    for place in filter(None, find_links.split(",")):
        folder = Path(place.removeprefix("file://"))
        if not folder.is_dir():
            return True
        wheels = [wheel.name for wheel in folder.glob("torch-*.whl")]
        if any(f"-{python}-" in wheel for wheel in wheels):
            return True
        if wheels:
            say(f"The torch in {folder} is not for Python {platform.python_version()}; looking elsewhere.")
    return False


def _run(command: list[str], env: dict[str, str]) -> None:
    """What it says goes to stderr; if we are ended, so is it."""
    subprocess.run(command, check=True, env=env, stdin=subprocess.DEVNULL, stdout=sys.stderr)


def installer_environment() -> dict[str, str]:
    """Ours, without what would send the packages elsewhere."""
    elsewhere = (
        "PIP_TARGET",
        "PIP_PREFIX",
        "PIP_ROOT",
        "PIP_REQUIREMENT",
        "PIP_CONSTRAINT",
        "PIP_USER",
        "PYTHONHOME",
        "PYTHONPATH",
        "VIRTUAL_ENV",
        "CONDA_PREFIX",
        "UV_CONSTRAINT",
        "UV_PYTHON",
        "UV_SYSTEM_PYTHON",
    )
    env = {name: value for name, value in os.environ.items() if name not in elsewhere}
    env |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}
    if user_cache() is None:
        env |= {"UV_NO_CACHE": "1", "PIP_NO_CACHE_DIR": "1"}
    return env


def uv_settings(python: str, env: dict[str, str]) -> dict[str, str]:
    """Tells uv what pip has been told: uv reads neither pip's files nor its variables."""
    names = {
        "index-url": "UV_DEFAULT_INDEX",
        "extra-index-url": "UV_INDEX",
        "find-links": "UV_FIND_LINKS",
        "cert": "SSL_CERT_FILE",
    }
    told = {names[key]: value for key, value in _pip_settings(python, env) if key in names}
    if "UV_FIND_LINKS" in told:
        told["UV_FIND_LINKS"] = ",".join(told["UV_FIND_LINKS"].split())
    if "UV_INDEX" in told:
        told["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # pip's own way with several indexes
    return {name: value for name, value in told.items() if not env.get(name)}


def _pip_settings(python: str, env: dict[str, str]) -> Iterator[tuple[str, str]]:
    """(option, value) as pip lists them, the stronger ones last: "global.index-url='...'"."""
    listed = subprocess.run(
        [python, "-I", "-m", "pip", "config", "list"], check=False, env=env, capture_output=True, text=True
    )
    lines = [line.partition("=") for line in listed.stdout.splitlines()]
    for name, _, quoted in sorted(lines, key=lambda line: line[0].startswith(":env:")):
        section, _, option = name.rpartition(".")
        if section in ("global", "install", ":env:"):
            yield option, quoted.strip("'").replace("\\n", " ").strip()


def install_project(folder: Path, wanted: Wanted) -> None:
    """Points at the checkout, and leaves the metadata and programs that an installer would."""
    name, version = wanted.project["name"], wanted.project["version"]
    site = _site_packages(folder)
    for old in site.glob(f"{name}-*.dist-info"):
        shutil.rmtree(old)
    (site / f"{name}.pth").write_text(f"{ROOT}\n", "utf-8")
    info = site / f"{name}-{version}.dist-info"
    info.mkdir()
    metadata = {
        "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        "INSTALLER": "fanfare-setup\n",
        "RECORD": "".join(
            f"{path},,\n" for path in (f"{name}.pth", f"{info.name}/METADATA", f"{info.name}/RECORD")
        ),
    }
    for file, text in metadata.items():
        (info / file).write_text(text, "utf-8")
    for command, entry in wanted.project["scripts"].items():
        _write_program(folder, command, entry)


def _site_packages(folder: Path) -> Path:
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    found = subprocess.run(
        [program(folder, "python"), "-I", "-c", ask], check=True, capture_output=True, text=True
    )
    return Path(found.stdout.rstrip("\n"))


def _write_program(folder: Path, command: str, entry: str) -> None:
    """A shell finds Python: a `#!` line takes neither spaces nor a long path."""
    module, _, function = entry.partition(":")
    python = shlex.quote(str(program(folder, "python")))
    lines = [
        "#!/bin/sh",
        f"'''exec' {python} \"$0\" \"$@\"",
        "' '''",
        "import sys",
        f"from {module} import {function}",
        f"sys.exit({function}())",
        "",
    ]
    path = program(folder, command)
    path.write_text("\n".join(lines), "utf-8")
    path.chmod(0o755)


# -- the program --------------------------------------------------------------------------------------


def set_up(extras: Iterable[str]) -> Path:
    """The folder of an environment that is ready. Raises `CannotSetUp`."""
    wanted = read_wanted(extras)
    folder = choose_folder(wanted)
    if not is_ready(folder, wanted):
        with locked(folder):
            if not is_ready(folder, wanted):  # the one we waited for may have done it
                make_ready(folder, wanted)
    return folder


def main(arguments: list[str]) -> int:
    """`[--dev]`; the exit code."""
    if not set(arguments) <= {"--dev"}:
        say("Usage: ./scripts/setup [--dev]")
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        folder = set_up(["dev", "gpu"] if arguments else [])
    except KeyboardInterrupt:
        say("Cut off; the next run makes it good.")
        return 128 + signal.SIGINT
    except (CannotSetUp, subprocess.CalledProcessError, OSError) as exc:
        say(f"Set-up failed: {exc}")
        return 1
    print(folder / "bin")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
