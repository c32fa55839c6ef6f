"""The backend's Celery app. Its settings are the contract's, read when they are first needed."""

from typing import Any

import redis
from amqp.exceptions import AMQPError
from celery import Celery, Task
from kombu.exceptions import OperationalError

from backend.settings import get_settings
from contract.queues import celery_settings
from contract.routing import AMQP, cpu_queue, rabbitmq_queues

# What says that the broker is away: kombu translates most of it, but not all
BROKER_ERRORS = (OperationalError, AMQPError, redis.RedisError, OSError)

# celery-types makes these generic; at run time they are not
Task.__class_getitem__ = classmethod(lambda cls, *_args: cls)  # type: ignore[attr-defined]


def _settings() -> dict[str, Any]:
    settings = get_settings()
    queues = rabbitmq_queues(settings.broker_url, cpu_queue)
    return celery_settings(settings.broker_url, settings.result_url) | {"task_queues": queues}


app = Celery("fanfare.backend", amqp=AMQP, set_as_current=False)
app.add_defaults(_settings)
