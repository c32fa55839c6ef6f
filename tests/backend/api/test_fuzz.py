"""Whatever is sent to the API: no 5xx, and no answer that the OpenAPI doesn't declare.

Requests are made from the OpenAPI itself: its examples, the edges of every constraint on either side, random
ones, and walks along its links, where jobs are made, followed, canceled, retried and deleted.

All of schemathesis' checks are on, but for `positive_data_acceptance` of the operations in `_CONFIG`: there a
request may be well-formed and yet be refused for what no schema can say.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from backend import keys
from backend.api import jobs
from tests.backend.api.conftest import Server

TIMEOUT_S = 90  # for a run; it takes some 12 s
EXAMPLES = 4  # random ones of each operation, beside the systematic ones
ALL_PHASES = "examples,coverage,fuzzing,stateful"
PHASES_WITHOUT_EDGES = "examples,fuzzing,stateful"  # the edges are the same, whatever the database

_CONFIG = """
max-stream-events = 1   # a job that nobody works on keeps its stream open
request-timeout = 20

[phases.stateful.generation]
max-examples = 20       # walks; fewer of them overlook a job that is shown to a stranger

[auth.wfc]
path = "people.json"
peers = ["ann", "bob"]  # must not see each other's jobs

[[operations]]
# Which models are alive, which images are made, what a webhook's host resolves to, which cursors were given
# out, which text is blank, what a table must look like: it is in no schema.
include-operation-id = [
    "create_thumbnails", "create_reproductions", "create_prompts", "create_uploads", "continue_job",
    "list_jobs", "create_product_images", "create_all_product_images",
    "create_event", "list_events",
    "create_webhook_endpoint", "update_webhook_endpoint", "list_webhook_deliveries",
    "create_product", "replace_product", "list_products", "import_products",
]
checks.positive_data_acceptance.enabled = false
"""


@pytest.fixture
def config(server: Server, tmp_path: Path) -> Path:
    """Two keys are in use: nobody is anonymous, so that routes which forget to ask for one are found."""
    people = []
    for name in ("ann", "bob"):
        with server.resources.db.session_scope() as session:
            text = keys.create(session, name)[1]
        header = {"name": "Authorization", "value": f"Bearer {text}"}
        people.append({"name": name, "fixedHeaders": [header]})
    (tmp_path / "people.json").write_text(json.dumps({"auth": people}))
    path = tmp_path / "schemathesis.toml"
    path.write_text(_CONFIG)
    return path


def test_no_request_gets_an_undeclared_answer(
    server: Server, config: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a server where `Prefer: wait=30` takes no half minute
    monkeypatch.setattr(jobs, "MAX_WAIT_S", 0.05)
    # When it is asked all that its OpenAPI allows, and much that it doesn't
    done = fuzz(server, config, ALL_PHASES if database_url.startswith("sqlite") else PHASES_WITHOUT_EDGES)
    # Then it never fails, and never surprises
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert re.search(r"Operations: +(\d+) selected / \1 total", done.stdout), done.stdout
    assert re.search(r"API Links: +[1-9]\d* covered", done.stdout), done.stdout


def fuzz(server: Server, config: Path, phases: str) -> subprocess.CompletedProcess[str]:
    # One worker: CPython 3.11 trips when two threads parse Python at once, as hypothesis does.
    program = Path(sys.executable).with_name("schemathesis")
    options = [
        "--workers", "1", "--phases", phases, "--max-examples", str(EXAMPLES), "--generation-deterministic",
        "--continue-on-failure", "--warnings", "off", "--no-color",
    ]  # fmt: skip
    return subprocess.run(
        [program, "--config-file", config, "run", f"{server.url}/openapi.json", *options],
        cwd=config.parent, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
