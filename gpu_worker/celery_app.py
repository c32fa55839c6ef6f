"""The node's Celery app: the contract's settings, and what only a node needs."""

import warnings

from celery import Celery
from celery.exceptions import SecurityWarning

from contract.addresses import is_amqp
from contract.node_access import NODE_UNACKED
from contract.queues import LEASE_S, celery_settings
from contract.routing import AMQP, rabbitmq_queues, reported_to
from gpu_worker.settings import Settings


def create_celery_app(settings: Settings) -> Celery:
    """An app of its own, with no tasks yet (`gpu_worker.tasks.register_tasks` adds them)."""
    app = Celery("gpu_worker", amqp=AMQP, set_as_current=False)
    app.conf.update(celery_settings(settings.broker_url, settings.result_url))
    if not is_amqp(settings.broker_url):
        app.conf.broker_transport_options = {
            **app.conf.broker_transport_options,
            **NODE_UNACKED,
            "visibility_timeout": LEASE_S,  # of what is renewed: `leases`
        }
    app.conf.update(
        task_queues=rabbitmq_queues(settings.broker_url, reported_to),
        # A thread can't be terminated: what is in hand when the connection is lost is finished, and
        # its second delivery gets the result that was kept.
        worker_cancel_long_running_tasks_on_connection_loss=False,
    )
    return app


def silence_known_warnings() -> None:
    """Drops what Celery says at each lost connection of the choice made above, and at each start as root.

    It warns root of pickled messages; ours are JSON and nothing else is accepted.
    """
    warnings.filterwarnings("ignore", message=r"\s*In Celery 5\.1", category=PendingDeprecationWarning)
    warnings.filterwarnings("ignore", category=SecurityWarning)
