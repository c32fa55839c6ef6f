"""What the API is compared with: Starlette, one database read or one insert, and JSON of the same size.

Served as the API is: the same uvicorn with the same settings, and the same pool of connections.
`python -m scripts.benchmarks.api.bare`: configured by the environment, as the API.
"""

from typing import TYPE_CHECKING, Any, cast
from uuid import UUID, uuid4

import sqlalchemy as sa
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from backend import serving
from backend.db import Database
from backend.settings import get_settings

if TYPE_CHECKING:
    from fastapi import FastAPI

METADATA = sa.MetaData()
DOCUMENTS = sa.Table(
    "bench_documents",
    METADATA,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("body", sa.Text, nullable=False),  # JSON that is answered as it is: nothing could be faster
)


def create_app(database: Database, accepted: bytes) -> Starlette:
    """Two endpoints, in threads, as every synchronous one. `accepted`: what a POST is answered."""

    def read(request: Request) -> Response:
        wanted = sa.select(DOCUMENTS.c.body).where(DOCUMENTS.c.id == UUID(request.path_params["id"]))
        with database.engine.connect() as connection:
            body = connection.scalar(wanted)
        return Response(body, media_type="application/json")

    def insert(_request: Request) -> Response:
        with database.engine.begin() as connection:
            connection.execute(sa.insert(DOCUMENTS).values(id=uuid4(), body=accepted.decode()))
        return Response(accepted, 202, media_type="application/json")

    return Starlette(
        routes=[
            Route("/documents/{id}", read, methods=["GET"]),
            Route("/documents", insert, methods=["POST"]),
        ]
    )


def main() -> None:
    """Serves until it is told to stop."""
    settings = get_settings()
    app: Any = create_app(Database(settings.database_url), b'{"accepted":"' + b"x" * 1000 + b'"}')
    with serving.bind(settings.api_host, settings.api_port, asked_for=True) as bound:
        serving.serve(cast("FastAPI", app), bound, settings, access_log=False)


if __name__ == "__main__":
    main()
