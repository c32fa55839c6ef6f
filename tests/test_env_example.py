"""`.env.example` names every setting with its default, and nothing that isn't one."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from backend.settings import Settings
from gpu_worker.settings import Settings as NodeSettings

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / ".env.example").read_text()
LINES = re.findall(r"^# ([A-Z][A-Z0-9_]*)=(.*)$", TEXT, flags=re.M)
EXAMPLE = dict(LINES)
FIELDS: dict[str, FieldInfo] = {
    f"FANFARE_{name.upper()}": field
    for settings in (NodeSettings, Settings)
    for name, field in settings.model_fields.items()
}
COMPUTED = {"FANFARE_HOME": "~/.fanfare", "FANFARE_NODE_NAME": ""}


def compose_variables() -> dict[str, str]:
    """Names that the compose files take from the environment, with the defaults that they give there."""
    texts = (
        re.sub(r"\s#.*$", "", (ROOT / name).read_text(), flags=re.M)
        for name in ("docker-compose.yml", "docker-compose.tls.yml", "docker-compose.gpu.yml")
    )
    found: dict[str, str] = {}
    for text in texts:
        found |= dict(re.findall(r"(?<!\$)\$\{([A-Z_]+):-([^${}]*)", text))
        found |= dict.fromkeys(re.findall(r"^ +(PIP_\w+):\s*$", text, flags=re.M), "")
    return found


def in_words(default: Any) -> str:
    if default is None or default is PydanticUndefined:
        return ""
    if isinstance(default, SecretStr):
        return default.get_secret_value()
    if isinstance(default, list):
        return ",".join(str(one) for one in default)
    return str(default).lower() if isinstance(default, bool) else str(default)


def test_every_setting_is_there_and_nothing_else() -> None:
    ours = {name for name in EXAMPLE if name.startswith("FANFARE_")}
    assert ours == set(FIELDS)


@pytest.mark.parametrize("name", FIELDS)
def test_the_default_that_is_shown_is_the_default(name: str) -> None:
    field = FIELDS[name]
    computed = field.default_factory is not None
    assert EXAMPLE[name] == (COMPUTED[name] if computed else in_words(field.default))


def test_what_only_containers_know_is_there_with_its_default() -> None:
    theirs = {name: value for name, value in EXAMPLE.items() if not name.startswith("FANFARE_")}
    assert theirs == {n: value for n, value in compose_variables().items() if not n.startswith("FANFARE_")}


def test_every_line_is_commented_out_and_explained() -> None:
    lines = TEXT.splitlines()
    assert all(not line or line.startswith("# ") for line in lines)
    names = [index for index, line in enumerate(lines) if re.match(r"# [A-Z][A-Z0-9_]*=", line)]
    for index in names:
        assert re.match(r"# [A-Za-z/*].*[.:]$", lines[index - 1]), lines[index]
    assert len(EXAMPLE) == len(LINES)  # none twice


def test_the_usual_names_are_told() -> None:
    for name, field in FIELDS.items():
        choices = getattr(field.validation_alias, "choices", [name])
        explained = TEXT[: TEXT.index(f"# {name}=")].splitlines()[-1]
        assert all(str(usual) in explained for usual in choices[1:]), name
