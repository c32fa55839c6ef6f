"""Names of settings: misspelt ones are found, wrong ones explained, secrets never shown."""

import pytest
from pydantic import AliasChoices, ValidationError

from backend.doctor import variables
from backend.settings import Settings
from gpu_worker.settings import Settings as NodeSettings


def test_the_nodes_settings_are_all_known_here() -> None:
    shared = {name for field in Settings.model_fields for name in variables.names_of(field)}
    of_nodes = set()
    for name, field in NodeSettings.model_fields.items():
        alias = field.validation_alias
        choices = alias.choices if isinstance(alias, AliasChoices) else [f"FANFARE_{name.upper()}"]
        of_nodes |= {str(choice) for choice in choices if str(choice).startswith("FANFARE_")}

    assert of_nodes - shared == set(variables.OF_NODES)


def test_a_misspelt_setting_gets_a_hint() -> None:
    (finding,) = variables.unknown({"FANFARE_DATABSE_URL": "x", "FANFARE_NODE_NAME": "n", "PATH": "/"})

    assert "FANFARE_DATABSE_URL" in finding.text
    assert finding.mend == "Did you mean FANFARE_DATABASE_URL?"


def test_settings_in_use_are_shown_without_their_secrets() -> None:
    given = {
        "FANFARE_DATABASE_URL": "postgresql://me:hunter2@db/fanfare",
        "FANFARE_BROKER_URL": "redis://:hunter3@queue:6379/0",
        "FANFARE_SECRET_KEY": "hunter4",
        "OPENAI_API_KEY": "hunter5",
    }

    text = variables.in_use(Settings(), given).text

    assert "hunter" not in text
    assert "FANFARE_DATABASE_URL=postgresql://me:***@db/fanfare" in text
    assert "OPENAI_API_KEY=***" in text


def test_what_is_wrong_is_told_by_the_name_that_the_user_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FANFARE_API_PORT", "eighty")
    monkeypatch.setenv("FANFARE_MAX_COUNT", "1000")

    with pytest.raises(ValidationError) as raised:
        Settings()
    lines = variables.explain(raised.value)

    assert any(line.startswith("FANFARE_API_PORT: ") and "'eighty'" in line for line in lines)
    assert any(line.startswith("FANFARE_MAX_COUNT: ") for line in lines)
