"""Events from the row to the mail server, which really listens, and back into the log."""

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa

from backend import webhooks
from backend.errors import InvalidRequest
from backend.jobs import deliveries, endpoints
from backend.jobs.deliveries import DeliveryStatus
from backend.jobs.models import WebhookDelivery
from backend.resources import ConfigurationError, Resources
from backend.settings import Settings
from tests.backend.conftest import MakeJob
from tests.backend.notify.mail_server import Mailbox, mail_server
from tests.backend.tasks.test_delivering import OWNER, add_endpoint, deliver, make_due, read
from tests.backend.workplace import Workplace, working

ANN, BOB = "mailto:ann@example.org", "mailto:bob@example.org"


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    with mail_server() as mailbox:
        yield mailbox


@pytest.fixture
def place(
    database_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mailbox: Mailbox
) -> Iterator[Workplace]:
    place = Workplace(
        database_url, redis_url, tmp_path, smtp_host="127.0.0.1", smtp_port=mailbox.port,
        smtp_security="none", smtp_from="Fanfare <fanfare@example.com>", email_recipients=["example.org"],
    )  # fmt: skip
    yield from working(place, monkeypatch)


def log_of(place: Workplace, delivery_id: UUID) -> list[tuple[int | None, str | None]]:
    return [(one.status_code, one.reason) for one in read(place, delivery_id).log]


def test_a_job_and_an_endpoint_write_letters(place: Workplace, make_job: MakeJob, mailbox: Mailbox) -> None:
    add_endpoint(place, BOB)
    job_id = make_job(webhook={"url": ANN, "events": ["job.created"]})

    taken = deliver(place)

    assert {one["To"] for one in mailbox.letters} == {"ann@example.org", "bob@example.org"}
    assert all(str(job_id) in (one.as_string()) for one in mailbox.letters)
    for delivery_id in taken:
        assert deliveries.status_of(read(place, delivery_id)) is DeliveryStatus.DELIVERED
        assert log_of(place, delivery_id) == [(250, None)]


def test_4xx_is_tried_again_and_5xx_given_up_and_sent_again_when_asked(
    place: Workplace, make_job: MakeJob, mailbox: Mailbox
) -> None:
    # Given a mail server that has no time, and then nobody of that name
    endpoint_id = add_endpoint(place, ANN)
    make_job()
    mailbox.to_letter.append("451 later")
    (delivery_id,) = deliver(place)
    assert deliveries.status_of(read(place, delivery_id)) is DeliveryStatus.PENDING
    mailbox.to_recipient.append("550 nobody")
    make_due(place)
    deliver(place)
    # Then it is given up, and the endpoint stays as it is: others of its letters may come through
    assert deliveries.status_of(read(place, delivery_id)) is DeliveryStatus.FAILED
    with place.parts.db.read_scope() as session:
        endpoint = endpoints.get(session, endpoint_id)
        assert endpoint is not None
        assert endpoint.enabled
    # When it is asked for again
    webhooks.redeliver(place.parts, delivery_id, OWNER)
    make_due(place)
    deliver(place)
    # Then it comes, under the same name as before
    assert [status for status, _ in log_of(place, delivery_id)] == [451, 550, 250]
    first, second = mailbox.letters
    assert first["Message-ID"] == second["Message-ID"]


def test_who_may_not_be_written_to_any_more_gets_nothing(
    place: Workplace, make_job: MakeJob, mailbox: Mailbox, tmp_path: Path
) -> None:
    add_endpoint(place, ANN)
    make_job()
    # When the settings are others by the time of the delivery
    settings = place.parts.settings.model_copy(update={"email_recipients": ["example.net"]})
    place.parts.notifier = Resources.open(settings).notifier
    (delivery_id,) = deliver(place)
    assert log_of(place, delivery_id) == [(None, "This server doesn't write to this address.")]
    place.parts.notifier = Resources.open(settings.model_copy(update={"smtp_host": ""})).notifier
    webhooks.redeliver(place.parts, delivery_id, OWNER)
    make_due(place)
    deliver(place)
    # Then nothing is sent, and it is not tried again
    assert log_of(place, delivery_id)[1] == (None, "This server sends no e-mail any more.")
    with place.parts.db.read_scope() as session:
        assert list(session.scalars(sa.select(WebhookDelivery.due_at))) == [None]
    assert mailbox.envelopes == []


def test_targets_are_looked_at_when_they_are_named(place: Workplace) -> None:
    for url in ("mailto:ann@example.net", "mailto:ann@example.org?bcc=eve@example.org", "mailto:ann"):
        with pytest.raises(InvalidRequest) as refused:
            add_endpoint(place, url)
        assert [one.pointer for one in refused.value.errors] == ["#/url"]


@pytest.mark.parametrize(
    "sender", ["", "fanfare", "Fanfare <fanfare>", "a@example.com\r\nBcc: b@example.com"]
)
def test_a_mail_server_needs_a_sender(tmp_path: Path, sender: str) -> None:
    settings = Settings(
        _env_file=None, home=tmp_path, broker_url="redis://127.0.0.1:1/0", smtp_host="127.0.0.1",
        smtp_from=sender,
    )  # fmt: skip
    with pytest.raises(ConfigurationError, match="FANFARE_SMTP_FROM"):
        Resources.open(settings)
