"""What queues are on RabbitMQ, and how messages get into them: both apps and every publisher must agree.

Quorum queues are replicated, and drop a message that came back too often; but they know no priorities, and
those are what the order of images and prompts is made of: queues of models and of the LLM are classic ones.
On Redis all of this is Celery's own: a queue is a list.
"""

from collections.abc import Callable
from typing import Any, Final

from amqp.exceptions import ChannelError
from celery import Celery
from celery.app import amqp as celerys
from kombu import Exchange, Queue
from kombu.exceptions import OperationalError

from contract.addresses import is_amqp
from contract.queues import BANDS, CPU_QUEUES, LLM_QUEUE

DELIVERY_LIMIT: Final = 20  # a task that kills its worker is thrown away; the sweep knows of its job
CONFIRM_WITHIN_S: Final = 10
NO_ROUTE: Final = 312

# A topic, because a countdown on a direct exchange blocks other tasks
CPU_EXCHANGE: Final = Exchange("fanfare", type="topic")
# Apart from it: what was delayed comes back by the end of its name, and models may have any name
GPU_EXCHANGE: Final = Exchange("gpu", type="direct")


def cpu_queue(name: str) -> Queue:
    """A queue of CPU workers, for those who declare it."""
    if name == LLM_QUEUE:
        return Queue(name, CPU_EXCHANGE, routing_key=name, max_priority=BANDS - 1)
    arguments = {"x-queue-type": "quorum", "x-delivery-limit": DELIVERY_LIMIT}
    return Queue(name, CPU_EXCHANGE, routing_key=name, queue_arguments=arguments)


def reported_to(name: str) -> Queue:
    """The same for nodes, which send there, and neither declare it nor take from it."""
    return Queue(name, CPU_EXCHANGE, routing_key=name, no_declare=True)


def model_queue(name: str) -> Queue:
    """The queue of a model, declared by whoever comes first."""
    return Queue(name, GPU_EXCHANGE, routing_key=name, max_priority=BANDS - 1)


class Queues(celerys.Queues):
    """Those that were not named beforehand are models'."""

    def new_missing(self, name: str) -> Queue:
        """Declares it as everybody else does."""
        return model_queue(name)


class AMQP(celerys.AMQP):
    """Celery's way of sending, but that RabbitMQ may not lose in silence what no queue takes."""

    app: Celery

    @property
    def queues_cls(self) -> type[celerys.Queues]:  # type: ignore[override]  # Celery's own is an attribute
        """What makes queues that were not named beforehand."""
        return Queues if self._on_rabbitmq() else celerys.Queues

    def _on_rabbitmq(self) -> bool:
        return is_amqp(str(self.app.conf.broker_url))

    def _create_task_sender(self) -> Callable[..., Any]:
        send = super()._create_task_sender()  # type: ignore[misc]  # the stubs don't know it
        return _sending_to_somebody(send) if self._on_rabbitmq() else send


def _sending_to_somebody(send: Callable[..., Any]) -> Callable[..., Any]:
    """Declares the queue anew where the broker has lost it since this process last declared it."""

    def send_to_somebody(producer: Any, name: str, message: Any, **options: Any) -> Any:
        options |= {"mandatory": True, "confirm_timeout": CONFIRM_WITHIN_S}
        for _ in range(2):
            try:
                return send(producer, name, message, **options)
            except ChannelError as exc:
                # The answer to the message is still on its way: this connection can't be used any more
                connection = producer.connection
                connection.collect()
                producer.revive(connection)
                if exc.reply_code != NO_ROUTE:
                    raise
        raise OperationalError(f"no queue takes {name}")

    return send_to_somebody


def rabbitmq_queues(broker_url: str, make: Callable[[str], Queue]) -> list[Queue] | None:
    """`task_queues` of an app that sends to CPU workers; None where it is not for us to say."""
    return [make(name) for name in CPU_QUEUES] if is_amqp(broker_url) else None
