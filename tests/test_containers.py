"""The container files, judged without an engine: valid, and as careful as we promise."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from gpu_worker.settings import Settings as NodeSettings

ROOT = Path(__file__).parent.parent
COMPOSE_FILES = ("docker-compose.yml", "docker-compose.gpu.yml")
OVERRIDE = "docker-compose.tls.yml"
DOCKERFILES = ("backend/Dockerfile", "gpu_worker/Dockerfile")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def compose(name: str) -> Any:
    """The file as it is written: merged by YAML, not interpolated."""
    return YAML(typ="safe").load(ROOT / name)


SERVICES = {
    f"{file}:{name}": service for file in COMPOSE_FILES for name, service in compose(file)["services"].items()
}


def run(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def tool(name: str) -> str:
    return str(Path(sys.executable).parent / name)


# -- valid -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", [*COMPOSE_FILES, OVERRIDE])
def test_compose_files_keep_the_specification(file: str) -> None:
    done = run(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", file)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("file", DOCKERFILES)
def test_dockerfiles_pass_hadolint(file: str) -> None:
    done = run(tool("hadolint"), "--failure-threshold", "style", file)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("file", [*COMPOSE_FILES, OVERRIDE])
def test_every_variable_has_a_default_so_that_nothing_need_be_set(file: str) -> None:
    text = (ROOT / file).read_text()
    assert re.findall(r"(?<!\$)\$\{\w+\}|(?<!\$)\$\w+", text) == []


# -- careful ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES.keys())
def test_every_service_gives_up_what_it_does_not_need(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"].split(":")[0] not in ("", "0", "root")
    assert "privileged" not in service
    assert not service.get("cap_add")


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES.keys())
def test_every_service_can_be_left_alone(service: dict[str, Any]) -> None:
    assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert service["restart"] == "unless-stopped"
    assert service["stop_grace_period"]
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES.keys())
def test_whatever_is_published_is_published_on_loopback(service: dict[str, Any]) -> None:
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert service.get("network_mode") is None


def test_with_tls_redis_is_published_with_tls_only() -> None:
    (port,) = compose(OVERRIDE)["services"]["redis"]["ports"]
    assert port.startswith("${REDIS_TLS_ADDRESS:-127.0.0.1}:")
    assert port.endswith(":6380")
    command = compose(OVERRIDE)["services"]["redis"]["command"][-1]
    assert "--tls-port 6380" in command
    assert "user default on >$$REDISCLI_AUTH" in command  # an ACL file without it opens Redis to everybody
    usual = compose("docker-compose.yml")["services"]["redis"]["command"][-1]
    assert usual[usual.index("--appendonly") :] in command  # it keeps what it holds as carefully


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES.keys())
def test_images_are_pinned_by_tag_and_ours_by_our_version(service: dict[str, Any]) -> None:
    name, _, tag = service["image"].partition(":")
    assert tag
    assert tag != "latest"
    assert name.startswith("fanfare-") == ("build" in service)
    if "build" in service:
        assert tag == PROJECT["project"]["version"]


def test_services_wait_for_what_they_need() -> None:
    services = compose("docker-compose.yml")["services"]
    waits = {name: service.get("depends_on", {}) for name, service in services.items()}
    assert {name: set(needed) for name, needed in waits.items()} == {
        "redis": set(),
        "postgres": set(),
        "api": {"redis", "postgres"},
        "worker": {"api"},
        "beat": {"api"},
        "flower": {"redis"},
    }
    conditions = {needed["condition"] for waited in waits.values() for needed in waited.values()}
    assert conditions == {"service_healthy"}


def test_the_database_is_out_of_reach_of_nodes() -> None:
    stack, nodes = map(compose, COMPOSE_FILES)
    assert stack["networks"]["database"] == {"internal": True}
    assert stack["services"]["postgres"]["networks"] == ["database"]
    assert nodes["networks"]["fanfare"]["name"] == "${STACK_NETWORK:-fanfare_default}"


@pytest.mark.parametrize("name", ["node", "node-cpu"])
def test_a_node_is_given_its_own_settings_and_nothing_else(name: str) -> None:
    service = compose("docker-compose.gpu.yml")["services"][name]
    settings = {f"FANFARE_{field.upper()}" for field in NodeSettings.model_fields}
    assert set(service["environment"]) == settings | {"OPENAI_BASE_URL", "OPENAI_API_KEY", "HF_TOKEN"}
    assert "env_file" not in service  # it may hold the backend's secrets


def test_a_gpu_node_gets_gpus_torch_and_a_place_for_models_and_the_other_nothing() -> None:
    nodes = compose("docker-compose.gpu.yml")["services"]
    (gpus,) = nodes["node"]["deploy"]["resources"]["reservations"]["devices"]
    assert (gpus["driver"], gpus["capabilities"], gpus["count"]) == ("nvidia", ["gpu"], "${NODE_GPUS:-all}")
    arguments = nodes["node"]["build"]["args"]
    assert (arguments["EXTRAS"], arguments["RUNTIME"]) == ("${NODE_EXTRAS:-gpu}", "gpu")
    assert nodes["node"]["volumes"] == ["models:/models"]
    assert nodes["node"]["environment"]["FANFARE_NODE_ENGINES"].endswith(":-diffusers}")

    assert not {"deploy", "volumes"} & set(nodes["node-cpu"])
    assert set(nodes["node-cpu"]["build"]["args"]) == {"PIP_INDEX_URL"}
    assert nodes["node"]["image"] != nodes["node-cpu"]["image"]


def test_what_a_gpu_node_keeps_is_in_its_volume_where_it_may_write_and_run_it() -> None:
    words = " ".join(rest for word, rest in final_stage("gpu_worker/Dockerfile") if word in ("ENV", "RUN"))
    assert "--owner 10001 --group 10001 /models" in words
    for name in ("HF_HOME", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        assert re.search(rf"\b{name}=/models", words)


@pytest.mark.parametrize("name", ["node", "node-cpu"])
def test_a_node_is_asked_itself_whether_it_works(name: str) -> None:
    assert compose("docker-compose.gpu.yml")["services"][name]["healthcheck"]["test"][1:] == [
        "fanfare-node",
        "health",
    ]


# -- the images ------------------------------------------------------------------------------------------


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """(instruction, arguments) in order, comments left out, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / dockerfile).read_text(), flags=re.M).replace("\\\n", " ")
    parted = (line.partition(" ") for line in text.splitlines() if line.strip())
    return [(word.upper(), rest.strip()) for word, _, rest in parted]


def final_stage(dockerfile: str) -> list[tuple[str, str]]:
    found = instructions(dockerfile)
    last = max(index for index, (word, _) in enumerate(found) if word == "FROM")
    return found[last:]


@pytest.mark.parametrize("file", DOCKERFILES)
def test_nothing_of_the_build_is_left_in_the_image(file: str) -> None:
    final = final_stage(file)
    assert [rest for word, rest in final if word == "COPY"] == ["--from=build /venv /venv"]
    (run_line,) = [rest for word, rest in final if word == "RUN"]
    assert "pip uninstall" in run_line
    assert not re.search(r"\b(apt-get|apt|curl|wget|pip install|uv)\b", run_line)
    assert not any(word in ("ARG", "ADD") for word, _ in final)


@pytest.mark.parametrize("file", DOCKERFILES)
def test_the_image_runs_as_an_ordinary_user_by_number(file: str) -> None:
    assert [rest for word, rest in final_stage(file) if word == "USER"] == ["10001:10001"]


@pytest.mark.parametrize("file", DOCKERFILES)
def test_base_images_are_pinned_and_no_frontend_is_fetched(file: str) -> None:
    assert not re.match(r"#\s*syntax", (ROOT / file).read_text())
    bases = [rest.split() for word, rest in instructions(file) if word == "FROM"]
    stages = {rest[-1] for rest in bases if "AS" in rest}
    chosen = {rest.partition("=")[2] for word, rest in instructions(file) if rest.startswith("RUNTIME=")}
    assert chosen <= stages
    assert all(re.fullmatch(r"python:3\.\d+-slim", base) for base, *_ in bases if base != "${RUNTIME}")


@pytest.mark.parametrize("file", DOCKERFILES)
def test_everything_that_is_copied_is_let_through(file: str) -> None:
    ignored, *patterns = [
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"
    ]
    let_through = {pattern[1:] for pattern in patterns if pattern[0] == "!"}
    copied = {
        source
        for word, rest in instructions(file)
        if word == "COPY" and "--from" not in rest
        for source in rest.split()[:-1]
    }
    assert ignored == "*"
    assert {source.partition("/")[0] for source in copied} <= let_through
    assert all((ROOT / source).exists() for source in copied)


# -- what each side goes without ---------------------------------------------------------------------------


def third_party_imports(package: str) -> set[str]:
    """Top-level modules that the package imports, at whatever depth."""
    trees = (ast.parse(path.read_text()) for path in (ROOT / package).rglob("*.py"))
    nodes = [node for tree in trees for node in ast.walk(tree)]
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    named = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    return {name.partition(".")[0] for name in plain | named} - sys.stdlib_module_names


def distribution_names(modules: set[str]) -> set[str]:
    known = packages_distributions()
    return {name.lower().replace("_", "-") for module in modules for name in known.get(module, [])}


def requirement_name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower()


@pytest.mark.parametrize("side", ["backend", "gpu_worker"])
def test_an_image_goes_without_what_its_code_does_not_import(side: str) -> None:
    lines = (ROOT / side / "excludes.txt").read_text().splitlines()
    excluded = {requirement_name(line) for line in lines if not line.startswith("#")}
    needed = distribution_names(third_party_imports(side) | third_party_imports("contract"))
    assert "pydantic" in needed
    assert not excluded & needed
    pinned = (ROOT / "constraints.txt").read_text().splitlines()
    assert excluded <= {requirement_name(line) for line in pinned}
