"""The commands: each reads what the user says, calls the part that does it, and shows what came of it.

Each imports its part when it runs: `fanfare --help` need not wait for SQLAlchemy, boto3 and FastAPI.
"""

import json
import logging
import re
import signal
import socket
import sys
from contextlib import closing
from dataclasses import asdict
from datetime import timedelta
from importlib.metadata import version as installed_version
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console

from backend.errors import FanfareError
from backend.settings import Settings

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from sqlalchemy.orm import Session

    from backend.client.answers import Job
    from backend.client.api import Client

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
FAILED, MISUSED, INTERRUPTED = 1, 2, 130
SECOND = timedelta(seconds=1)

app = typer.Typer(
    name="fanfare",
    help="One message goes in, a fanfare of finished images comes out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
keys_app = typer.Typer(help="API keys: make, list, revoke.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")

WIDE = 160  # columns, where the output goes to a file or a pipe
out = Console(width=None if sys.stdout.isatty() else WIDE)
err = Console(stderr=True)

Server = Annotated[
    str | None,
    typer.Option(envvar="FANFARE_API_URL", help="A server elsewhere; else the one on this machine."),
]
ApiKey = Annotated[
    str | None, typer.Option(envvar="FANFARE_API_KEY", help="Better given by FANFARE_API_KEY than here.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON, for programs.")]
TaskId = Annotated[str, typer.Argument(metavar="TASK_ID")]


def run() -> None:
    """Runs one command. What is the user's to mend is said plainly; a bug of ours keeps its traceback."""
    try:
        app()
    except ValidationError as exc:
        _say_what_is_wrong_with_settings(exc)
        raise SystemExit(MISUSED) from None
    except FanfareError as exc:
        err.print(f"Error: {exc.detail}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(FAILED) from None


def _show_version(wanted: bool) -> None:
    if wanted:
        out.print(f"fanfare {installed_version('fanfare')}", highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def version() -> None:
    """Show the version."""
    _show_version(wanted=True)


# -- one machine --------------------------------------------------------------------------------------


@app.command()
def up(
    host: Annotated[str | None, typer.Option(help="Where the API listens (FANFARE_API_HOST).")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="FANFARE_API_PORT.")] = None,
    nodes: Annotated[int, typer.Option(min=0, max=64, help="How many GPU nodes.")] = 1,
    engine: Annotated[
        str, typer.Option(help="Engines of the nodes, comma-separated (FANFARE_NODE_ENGINES).")
    ] = "",
    no_node: Annotated[
        bool, typer.Option("--no-node", help="Without a node: they join from elsewhere.")
    ] = False,
    lifeline: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run everything on this machine: broker, API, worker, node. Ctrl-C ends it all."""
    from backend.embedded.log import Log
    from backend.embedded.stack import UpOptions
    from backend.embedded.stack import up as run_stack

    settings = _settings(api_host=host, api_port=port)
    options = UpOptions(
        nodes=0 if no_node else nodes,
        engines=engine,
        port_asked_for=lifeline is None and "api_port" in settings.model_fields_set,
        lifeline=lifeline,
        private=lifeline is not None,
    )
    run_stack(settings, options, Log())


# -- single parts, for containers ---------------------------------------------------------------------


@app.command()
def api(
    host: Annotated[str | None, typer.Option(help="FANFARE_API_HOST.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="FANFARE_API_PORT.")] = None,
    access_log: Annotated[bool, typer.Option(help="A line in the log for each request.")] = False,
    fd: Annotated[int | None, typer.Option(hidden=True, help="A bound socket, from `up`.")] = None,
) -> None:
    """Run the API alone; brings the database up to date first."""
    from backend import serving
    from backend.main import create_app
    from backend.migrate import migrate as bring_up_to_date

    settings = _settings(api_host=host, api_port=port)
    logging.basicConfig(level=settings.log_level, format=LOG_FORMAT)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    bring_up_to_date(settings)
    if fd is not None:
        bound = socket.socket(fileno=fd)
    else:
        permitted, note = serving.permitted_host(settings)
        if note:
            err.print(note, style="yellow", highlight=False)
        bound = serving.bind(permitted, settings.api_port, asked_for=True)
    with bound:
        serving.serve(create_app(settings), bound, settings, access_log=access_log)


@app.command()
def worker(
    with_beat: Annotated[bool, typer.Option("--with-beat", help="Beat in the same process.")] = False,
) -> None:
    """Run a CPU worker; brings the database up to date first."""
    settings = _settings_with_broker()
    from backend.migrate import migrate as bring_up_to_date
    from backend.worker import run_worker

    bring_up_to_date(settings)
    run_worker(settings, with_beat=with_beat)


@app.command()
def beat() -> None:
    """Run beat alone: it sends the sweep on time."""
    settings = _settings_with_broker()
    from backend.worker import run_beat

    run_beat(settings)


@app.command()
def migrate() -> None:
    """Bring the database up to date."""
    from backend import db
    from backend.migrate import migrate as run

    run(_settings())
    out.print(f"The database is at {db.head_revision()}.", highlight=False)


@app.command()
def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    older_than: Annotated[
        str, typer.Option(help="Of files that no job knows of: 90m, 24h, 7d.", metavar="AGE")
    ] = "24h",
    force: Annotated[
        bool, typer.Option("--force", help="Also where the database knows none of the storage's jobs.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Delete expired jobs, files that no job knows of, and what was never finished."""
    from backend.db import Database
    from backend.prune import Find
    from backend.prune import prune as run
    from backend.prune_report import find_line, finds_line
    from backend.resources import open_storage

    age, settings = _read_age(older_than), _settings()
    storage, finds = open_storage(settings), list[Find]()
    with closing(Database(settings.database_url)) as database:
        database.check()
        for find in run(
            database, storage, kept_for=settings.job_ttl, older_than=age, dry_run=dry_run, force=force
        ):
            finds.append(find)
            if not as_json:
                typer.echo(find_line(find, dry_run=dry_run))
    _show([asdict(find) for find in finds]) if as_json else typer.echo(finds_line(finds, dry_run=dry_run))


def _read_age(text: str) -> timedelta:
    """90m, 24h, 7d."""
    given = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if given is None:
        raise typer.BadParameter("An age is a number and a unit: 90m, 24h, 7d.", param_hint="--older-than")
    return int(given[1]) * {"s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND, "d": 86400 * SECOND}[given[2]]


@app.command("node-acl")
def node_acl(
    user: Annotated[str, typer.Argument(help="What the node is called by the broker.")] = "node",
) -> None:
    """Print a Redis user that may do what a node must, and nothing else, with a new password.

    The user goes to stdout, as a line of an ACL file; the password, shown this once, to stderr.
    """
    from hashlib import sha256
    from secrets import token_hex

    from contract.node_access import node_acl as line_of

    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", user):
        raise typer.BadParameter("A name has 1 to 64 letters, digits, dots, dashes and underscores.")
    password = token_hex(32)
    typer.echo(line_of(user, sha256(password.encode()).hexdigest()))
    typer.echo(f"FANFARE_BROKER_URL=rediss://{user}:{password}@HOST:6379/0", err=True)


# -- making images ------------------------------------------------------------------------------------


@app.command()
def make(
    message: Annotated[str, typer.Argument(help="What it is about, in your words; - reads it from stdin.")],
    count: Annotated[int, typer.Option("--count", "-n", help="How many images.")] = 4,
    out_folder: Annotated[Path | None, typer.Option("--out", "-o", help="Default: out/<task_id>.")] = None,
    model: Annotated[str | None, typer.Option(help="See `fanfare models`.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed makes the same images.")] = None,
    title: Annotated[str | None, typer.Option(help="To be set on the pictures, where the model can.")] = None,
    output_format: Annotated[str | None, typer.Option("--format", help="webp, png or jpeg.")] = None,
    server: Server = None,
    api_key: ApiKey = None,
) -> None:
    """Make images from a message, watch them come, and save them. Needs no running server."""
    from backend.make import MakeOptions
    from backend.make import make as run

    given = {
        "message": _read_message(message),
        "count": count,
        "model": model,
        "width": width,
        "height": height,
        "seed": seed,
        "title": title,
        "output_format": output_format,
    }
    request = {name: value for name, value in given.items() if value is not None}
    options = MakeOptions(request, count, out_folder, server, api_key)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = run(_settings(), options, out)
    except KeyboardInterrupt:
        err.print("Interrupted.", style="yellow")
        raise typer.Exit(INTERRUPTED) from None
    raise typer.Exit(code)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    """SIGTERM ends a `make` as Ctrl-C does: job canceled, server stopped."""
    raise KeyboardInterrupt


def _read_message(message: str) -> str:
    return sys.stdin.read() if message == "-" else message


# -- looking and steering -----------------------------------------------------------------------------


@app.command()
def jobs(
    status: Annotated[str | None, typer.Option(help="Only those with this status.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    as_json: AsJson = False,
    server: Server = None,
    api_key: ApiKey = None,
) -> None:
    """List the newest jobs."""
    from backend.tables import jobs_table

    with _client(server, api_key) as client:
        found = client.jobs(limit=limit, status=status)
    _show([job.raw for job in found]) if as_json else out.print(jobs_table(found))


@app.command()
def job(task_id: TaskId, as_json: AsJson = False, server: Server = None, api_key: ApiKey = None) -> None:
    """Show one job and what became of its images, files or event."""
    with _client(server, api_key) as client:
        _show_job(client.job(task_id), as_json=as_json)


@app.command()
def cancel(task_id: TaskId, as_json: AsJson = False, server: Server = None, api_key: ApiKey = None) -> None:
    """Cancel a job."""
    with _client(server, api_key) as client:
        _show_job(client.cancel(task_id), as_json=as_json)


@app.command()
def retry(task_id: TaskId, as_json: AsJson = False, server: Server = None, api_key: ApiKey = None) -> None:
    """Re-run what failed in a job."""
    with _client(server, api_key) as client:
        _show_job(client.retry(task_id), as_json=as_json)


@app.command()
def workers(as_json: AsJson = False, server: Server = None, api_key: ApiKey = None) -> None:
    """List the live nodes."""
    from backend.tables import workers_table

    with _client(server, api_key) as client:
        nodes = client.workers()
    _show(nodes) if as_json else out.print(workers_table(nodes) if nodes else "No node is alive.")


@app.command()
def models(as_json: AsJson = False, server: Server = None, api_key: ApiKey = None) -> None:
    """List the models that can be asked for."""
    from backend.tables import models_table

    with _client(server, api_key) as client:
        known = client.models()
    _show(known) if as_json else out.print(models_table(known))


@app.command()
def openapi(
    to: Annotated[Path | None, typer.Option("--out", "-o", help="A file; else it is printed.")] = None,
) -> None:
    """Write the OpenAPI document. Needs no service."""
    from backend.openapi import document
    from backend.saved_folder import write_whole

    text = json.dumps(document(), indent=2, ensure_ascii=False) + "\n"
    if to:
        write_whole(to, text.encode())
    else:
        sys.stdout.write(text)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check every setting and connection, and say how to mend what is wrong."""
    from backend.doctor.examination import examine
    from backend.doctor.findings import Level, show

    findings = list(examine())
    if as_json:
        _show([finding.as_dict() for finding in findings])
    else:
        show(findings, out)
    raise typer.Exit(FAILED if any(finding.level is Level.FAIL for finding in findings) else 0)


# -- keys ---------------------------------------------------------------------------------------------


KEY_COLUMNS = ("prefix", "name", "weight", "created_at", "revoked_at")


@keys_app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="For you to know it by.")],
    weight: Annotated[int, typer.Option(help="So many times the share of others, where images wait.")] = 1,
) -> None:
    """Make a key. It is shown once; the server keeps a hash."""
    from backend import keys

    with _keys_session() as session:
        _, text = keys.create(session, name, weight)
    err.print("Keep it safe, it is not shown again:", style="dim")
    out.print(text, markup=False, highlight=False, soft_wrap=True)


@keys_app.command("list")
def list_keys(as_json: AsJson = False) -> None:
    """List all keys, the revoked ones too."""
    from backend import keys
    from backend.tables import keys_table

    with _keys_session() as session:
        rows = [
            (
                key.prefix,
                key.name,
                str(key.weight),
                key.created_at.isoformat(),
                key.revoked_at.isoformat() if key.revoked_at else "",
            )
            for key in keys.list_keys(session)
        ]
    if as_json:
        _show([dict(zip(KEY_COLUMNS, row, strict=True)) for row in rows])
    else:
        out.print(keys_table(rows))


@keys_app.command("revoke")
def revoke_key(prefix: Annotated[str, typer.Argument(help="The key's prefix or id.")]) -> None:
    """End a key; its jobs stay."""
    from backend import keys

    with _keys_session() as session:
        key = keys.revoke(session, prefix)
    out.print(f"Revoked: {key.prefix} ({key.name})", markup=False, highlight=False)


@keys_app.command("weight")
def weigh_key(
    prefix: Annotated[str, typer.Argument(help="The key's prefix or id.")],
    weight: Annotated[int, typer.Argument(help="1 to 100; 1 is everybody's.")],
) -> None:
    """Give an owner so many times the share of others, from the next job on."""
    from backend import keys

    with _keys_session() as session:
        key = keys.weigh(session, prefix, weight)
    out.print(f"{key.prefix} ({key.name}) weighs {key.weight}", markup=False, highlight=False)


def _keys_session() -> "AbstractContextManager[Session]":
    from backend.db import Database
    from backend.embedded.home import Home
    from backend.migrate import migrate as run

    settings = _settings()
    if settings.database_url.startswith(f"sqlite:///{settings.home}"):
        Home(settings.home).prepare()
    run(settings)
    return Database(settings.database_url).session_scope()


# -- shared -------------------------------------------------------------------------------------------


def _settings(**given: Any) -> Settings:  # noqa: ANN401 - whatever the setting is
    """The settings, with what was given on the command line; children read the same from the environment."""
    return Settings(**{name: value for name, value in given.items() if value is not None})


def _settings_with_broker() -> Settings:
    settings = _settings()
    if not settings.broker_url:
        err.print("FANFARE_BROKER_URL is not set. `fanfare up` brings a broker of its own.", style="red")
        raise typer.Exit(MISUSED)
    return settings


def _client(server: str | None, api_key: str | None) -> "Client":
    from backend.client.api import Client
    from backend.local_server import find_server

    url, key = find_server(_settings(), server, api_key)
    return Client(url, api_key=key, attempts=2)


def _show_job(found: "Job", *, as_json: bool) -> None:
    from backend.tables import items_table, job_heading, job_table

    if as_json:
        _show(found.raw)
        return
    out.print(job_heading(found), highlight=False)
    if found.images:
        out.print(job_table(found))
    if found.items:
        out.print(items_table(found))
        if found.progress.total > len(found.items):
            out.print(f"... and {found.progress.total - len(found.items)} more files.")
    if found.output is not None:
        out.print_json(data=found.output)


def _show(data: Any) -> None:  # noqa: ANN401 - JSON
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def _say_what_is_wrong_with_settings(exc: ValidationError) -> None:
    from backend.doctor.variables import explain

    err.print("Error: these settings can't be used.", style="red")
    for line in explain(exc):
        err.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
