"""What owners do with their webhooks: endpoints, secrets, and deliveries that are asked for again."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from backend.errors import Conflict, FieldError, InvalidRequest, NotFound, TargetRefused
from backend.jobs import deliveries, endpoints
from backend.jobs.endpoints import SecretVersions
from backend.jobs.models import WebhookDelivery, WebhookEndpoint
from backend.notify import secrets
from backend.resources import Resources
from backend.tasks import notify
from backend.views import now

MOST_GRACE = timedelta(days=7)  # for an old secret


@dataclass(frozen=True)
class Secret:
    """What to verify webhooks with."""

    text: str
    old_until: datetime | None  # until then the one before it signs as well


def create_endpoint(
    resources: Resources, owner: str, *, url: str, events: list[str], description: str, enabled: bool
) -> WebhookEndpoint:
    """A new endpoint. Raises `InvalidRequest` for a URL that may not be called, `Conflict` for too many."""
    _check_url(resources, url)
    with resources.db.session_scope() as session:
        return endpoints.add(
            session, owner, now(), url=url, events=events, description=description, enabled=enabled
        )


def change_endpoint(
    resources: Resources,
    endpoint_id: UUID,
    owner: str,
    *,
    url: str | None = None,
    events: list[str] | None = None,
    description: str | None = None,
    enabled: bool | None = None,
) -> WebhookEndpoint:
    """Changes what is given. Raises `NotFound`, or `InvalidRequest` for a URL that may not be called.

    What an endpoint that is disabled was still to be told is given up.
    """
    read_endpoint(resources, endpoint_id, owner)  # before anything is looked up for a stranger
    if url is not None:
        _check_url(resources, url)
    with resources.db.session_scope() as session:
        endpoint = endpoints.lock(session, endpoint_id, owner)
        if endpoint is None:
            raise NotFound("There is no such endpoint.")
        endpoint.url = endpoint.url if url is None else url
        endpoint.events = endpoint.events if events is None else events
        endpoint.description = endpoint.description if description is None else description
        if enabled is not None:
            endpoint.enabled, endpoint.disabled_reason = enabled, None
        if enabled is False:
            deliveries.give_up_all(session, endpoint.id, notify.DISABLED)
        endpoint.updated_at = now()
    return endpoint


def delete_endpoint(resources: Resources, endpoint_id: UUID, owner: str) -> None:
    """Deletes it; what it was still to be told is given up. Raises `NotFound`."""
    with resources.db.session_scope() as session:
        endpoint = endpoints.lock(session, endpoint_id, owner)
        if endpoint is None:
            raise NotFound("There is no such endpoint.")
        deliveries.give_up_all(session, endpoint.id, notify.DELETED)
        session.delete(endpoint)


def read_endpoint(resources: Resources, endpoint_id: UUID, owner: str) -> WebhookEndpoint:
    """The owner's endpoint. Raises `NotFound`."""
    with resources.db.read_scope() as session:
        endpoint = endpoints.get(session, endpoint_id, owner)
    if endpoint is None:
        raise NotFound("There is no such endpoint.")
    return endpoint


def _check_url(resources: Resources, url: str) -> None:
    try:
        resources.notifier.check_target(url)
    except TargetRefused as exc:
        raise InvalidRequest(
            "The endpoint's URL can't be used.", errors=(FieldError("#/url", exc.detail),)
        ) from exc


# -- secrets ------------------------------------------------------------------------------------------


def endpoint_secret(resources: Resources, endpoint_id: UUID, owner: str) -> Secret:
    """What deliveries to the endpoint are signed with. Raises `NotFound`."""
    endpoint = read_endpoint(resources, endpoint_id, owner)
    return _of_endpoint(resources, endpoint_id, endpoints.versions(endpoint))


def rotate_endpoint_secret(resources: Resources, endpoint_id: UUID, owner: str, grace: timedelta) -> Secret:
    """Gives the endpoint a new secret; the old one signs as well for a while. Raises `NotFound`."""
    with resources.db.session_scope() as session:
        endpoint = endpoints.lock(session, endpoint_id, owner)
        if endpoint is None:
            raise NotFound("There is no such endpoint.")
        versions = endpoints.rotate(endpoint, now(), grace)
    return _of_endpoint(resources, endpoint_id, versions)


def owner_secret(resources: Resources, owner: str) -> Secret:
    """What webhooks of the owner's single jobs are signed with."""
    with resources.db.read_scope() as session:
        versions = endpoints.versions(endpoints.owner_secret(session, owner))
    return _of_owner(resources, owner, versions)


def rotate_owner_secret(resources: Resources, owner: str, grace: timedelta) -> Secret:
    """The same as `rotate_endpoint_secret`, for webhooks of single jobs."""
    with resources.db.session_scope() as session:
        versions = endpoints.rotate_owner_secret(session, owner, now(), grace)
    return _of_owner(resources, owner, versions)


def _of_endpoint(resources: Resources, endpoint_id: UUID, versions: SecretVersions) -> Secret:
    text = secrets.endpoint_secret(resources.secret, endpoint_id, versions.newest)
    return Secret(text, _until(versions))


def _of_owner(resources: Resources, owner: str, versions: SecretVersions) -> Secret:
    text = secrets.owner_secret(resources.secret, owner, versions.newest)
    return Secret(text, _until(versions))


def _until(versions: SecretVersions) -> datetime | None:
    return versions.old_until if len(versions.signing(now())) > 1 else None


# -- deliveries ---------------------------------------------------------------------------------------


def redeliver(resources: Resources, delivery_id: UUID, owner: str) -> WebhookDelivery:
    """Sends it once more, and again if that fails, under the same webhook-id. Raises `NotFound`, or
    `Conflict` if it is in hand, was tried too often, or its endpoint takes none.
    """
    with resources.db.session_scope() as session:
        delivery = deliveries.lock(session, delivery_id, owner)
        if delivery is None:
            raise NotFound("There is no such delivery.")
        endpoint = endpoints.get(session, delivery.endpoint_id) if delivery.endpoint_id else None
        if delivery.endpoint_id and (endpoint is None or not endpoint.enabled):
            raise Conflict(notify.DELETED if endpoint is None else notify.DISABLED)
        deliveries.redeliver(session, delivery, now())
    notify.send_due(resources, delivery.job_id)
    return read_delivery(resources, delivery_id, owner)


def read_delivery(resources: Resources, delivery_id: UUID, owner: str) -> WebhookDelivery:
    """The owner's delivery, with its event and its log. Raises `NotFound`."""
    with resources.db.read_scope() as session:
        delivery = deliveries.get(session, delivery_id, owner)
    if delivery is None:
        raise NotFound("There is no such delivery.")
    return delivery
