"""The documents say what the code does: settings, codes, events, commands, layers, files."""

import ast
import re
import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest
import typer.main

import backend.errors
from backend.api import problems
from backend.commands import app
from backend.doctor.variables import OF_THE_COMMAND_LINE
from backend.pipelines.base import WebhookEvent
from backend.settings import Settings
from contract.messages import FailureCode
from gpu_worker.settings import Settings as NodeSettings
from tests.test_env_example import COMPUTED, FIELDS, in_words

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {str(path.relative_to(ROOT)): path.read_text() for path in DOCUMENTS}

# Codes of `backend.errors` that no client ever sees, and why.
NEVER_SENT = {
    "request_refused": "only what is derived from it is raised",
    "forbidden": "only what is derived from it is raised",
    "service_unavailable": "only what is derived from it is raised",
    "too_many_requests": "only what is derived from it is raised",
    "broker_unavailable": "a job is accepted without the broker, and sent later",
    "object_too_large": "becomes original_corrupt",
    "target_refused": "becomes invalid_request at submit, and is logged later",
    "target_gone": "logged",
    "delivery_failed": "logged",
    "notify_failed": "only what is derived from it is raised",
    "canceled": "a canceled job's images are canceled, not failed",
}


# -- settings --------------------------------------------------------------------------------------------


def tables(name: str) -> dict[str, list[list[str]]]:
    """Rows of all tables under each second-level heading, as cells."""
    sections = re.split(r"^## ", TEXTS[name], flags=re.M)
    return {
        section.partition("\n")[0]: [
            [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            for line in section.splitlines()
            if line.startswith("| ") and not line.startswith("| ---")
        ]
        for section in sections
    }


CONFIGURATION = {
    heading: {row[0].strip("`"): row for row in rows if row[0].startswith("`")}
    for heading, rows in tables("docs/configuration.md").items()
}
TOLD = {name: row for rows in CONFIGURATION.values() for name, row in rows.items()}


def variables(settings: type[Any]) -> set[str]:
    return {f"FANFARE_{name.upper()}" for name in settings.model_fields}


def test_every_setting_stands_where_it_belongs_and_nothing_else_does() -> None:
    ours, nodes = variables(Settings), variables(NodeSettings)
    assert set(CONFIGURATION["Backend and nodes"]) == ours & nodes
    assert set(CONFIGURATION["Backend"]) == ours - nodes
    assert set(CONFIGURATION["Nodes"]) == nodes - ours
    assert set(CONFIGURATION["Beside the settings"]) == {*OF_THE_COMMAND_LINE, "FANFARE_PYTHON"}


@pytest.mark.parametrize("name", FIELDS)
def test_a_setting_is_told_with_its_default_and_its_other_names(name: str) -> None:
    field = FIELDS[name]
    _, default, also, told = TOLD[name]
    expected = COMPUTED[name] if field.default_factory else in_words(field.default)
    assert default.strip("`") == expected
    usual = [str(choice) for choice in getattr(field.validation_alias, "choices", [])]
    assert [one for one in re.findall(r"`(\w+)`", also) if one != name] == [n for n in usual if n != name]
    assert told or "SECRET" in name


def test_variables_that_are_named_in_passing_exist() -> None:
    for document, text in TEXTS.items():
        named = set(re.findall(r"\bFANFARE_[A-Z0-9_]*[A-Z0-9]\b(?!_|\*)", text))
        assert named <= set(TOLD), document


# -- error codes -----------------------------------------------------------------------------------------


def constants(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text()))
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def codes_in_calls(path: Path) -> set[str]:
    """The codes of `Fault("code", ...)` and of `answer(..., code="code")`."""
    found: set[object] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id == "Fault":
            found |= {one.value for one in node.args[:1] if isinstance(one, ast.Constant)}
        if isinstance(node.func, ast.Name) and node.func.id == "answer":
            found |= {
                k.value.value for k in node.keywords if k.arg == "code" and isinstance(k.value, ast.Constant)
            }
    return {str(code) for code in found}


def codes_of_errors() -> set[str]:
    kinds = [kind for kind in vars(backend.errors).values() if isinstance(kind, type)]
    return {kind.code for kind in kinds if issubclass(kind, backend.errors.FanfareError)}


def codes_that_can_be_sent() -> set[str]:
    in_calls = {code for path in (ROOT / "backend").rglob("*.py") for code in codes_in_calls(path)}
    everything = (
        codes_of_errors() | {code.value for code in FailureCode} | in_calls | set(problems._CODES.values())
    )
    return everything - set(NEVER_SENT)


def test_every_error_code_is_explained_and_none_is_invented() -> None:
    rows = [row for rows in tables("docs/errors.md").values() for row in rows]
    told = {code for row in rows for cell in row[:2] for code in re.findall(r"`([a-z_]+)`", cell)}
    assert told == codes_that_can_be_sent()


def test_what_is_never_sent_exists() -> None:
    assert set(NEVER_SENT) <= codes_of_errors() | {code.value for code in FailureCode}


def test_a_code_stands_under_the_status_that_it_is_sent_with() -> None:
    rows = tables("docs/errors.md")["Of requests (`application/problem+json`, field `code`)"]
    told = {code: int(row[0]) for row in rows[1:] for code in re.findall(r"`([a-z_]+)`", row[1])}
    kinds = [kind for kind in vars(backend.errors).values() if isinstance(kind, type)]
    statuses = {k.code: k.status for k in kinds if issubclass(k, backend.errors.FanfareError)}
    statuses |= {code: status for status, code in problems._CODES.items()}
    assert told == {code: statuses.get(code, status) for code, status in told.items()}


# -- events ----------------------------------------------------------------------------------------------


def test_events_that_are_told_of_exist_and_all_that_can_be_asked_for_are_told() -> None:
    recorded = constants(ROOT / "backend/jobs/store.py") | constants(ROOT / "backend/jobs/events.py")
    types = {text for text in recorded if re.fullmatch(r"(job|image)\.[a-z_]+", text)}
    put_together = {"image.canceled", "item.completed", "item.failed"}
    assert set(get_args(WebhookEvent)) <= types | put_together
    for document, text in TEXTS.items():
        named = set(re.findall(r"[`\"]((?:job|image|item)\.(?!json)[a-z_]+)[`\"]", text))
        assert named <= types | set(get_args(WebhookEvent)), document
    assert set(get_args(WebhookEvent)) <= set(re.findall(r"`([a-z]+\.[a-z_]+)`", TEXTS["docs/api.md"]))


def test_the_streams_events_are_those_that_it_sends() -> None:
    sent = constants(ROOT / "backend/api/events.py")
    text = TEXTS["docs/api.md"]
    named = set(re.findall(r"`event: (\w+)`", text)) | set(re.findall(r'addEventListener\("(\w+)"', text))
    assert named == {"job", "image", "item", "progress", "preview"}
    assert named <= sent


# -- commands --------------------------------------------------------------------------------------------


def commands() -> dict[str, set[str]]:
    """Each command of `fanfare` with its options; those of groups as two words."""
    found: dict[str, set[str]] = {}
    root: Any = typer.main.get_command(app)
    for name, command in root.commands.items():
        found[name] = {option for parameter in command.params for option in parameter.opts}
        for second in getattr(command, "commands", {}):
            found[f"{name} {second}"] = set()
    return found


@pytest.mark.parametrize("document", TEXTS)
def test_commands_that_are_told_exist(document: str) -> None:
    known = commands()
    for code in re.findall(r"`fanfare ([^`]*)`|^fanfare (.*?)(?:  +#.*)?$", TEXTS[document], flags=re.M):
        words = (code[0] or code[1]).split()
        name = " ".join(words[:2]) if " ".join(words[:2]) in known else words[0].partition("|")[0]
        assert name in known, words
        given = {word for word in words if word.startswith("-")}
        assert given <= known[name], words


# -- the house -------------------------------------------------------------------------------------------


def test_the_layers_are_drawn_as_they_are_kept() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = [layer for one in contracts for layer in one.get("layers", []) if one.get("containers")]
    drawn = [line.strip() for line in TEXTS["docs/architecture.md"].splitlines()]
    assert [line for line in drawn if line in layers] == layers


# -- links and files -------------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", text, flags=re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", TEXTS)
def test_links_lead_somewhere(document: str) -> None:
    here = (ROOT / document).parent
    for link in re.findall(r"\]\((?!https?://)([^)]+)\)", TEXTS[document]):
        path, _, anchor = link.partition("#")
        target = here / path if path else ROOT / document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


FOLDERS = "backend|gpu_worker|contract|docs|tests|scripts|\\.ci"
MADE_BY_USERS = {"docker-compose.override.yml"}
AT_THE_ROOT = r"[\w.-]+\.(?:md|toml|yml|txt|ini)|\.env\.example"


@pytest.mark.parametrize("document", TEXTS)
def test_files_that_are_named_exist(document: str) -> None:
    quoted = re.findall(r"`([^`\s]+)`", TEXTS[document]) + re.findall(r"(\./scripts/\w+)", TEXTS[document])
    named = [
        path for path in quoted
        if re.fullmatch(rf"(\./)?({FOLDERS})/[\w./-]*|{AT_THE_ROOT}", path)
    ]  # fmt: skip
    assert [path for path in named if not (ROOT / path).exists() and path not in MADE_BY_USERS] == []
