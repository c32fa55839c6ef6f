"""Queue names, task names, routes and the Celery settings: both apps load these, and nothing else.

A node reports to the backend by a task of the backend's, so it must route that exactly as the backend does:
that is why the routes are part of the contract.
"""

from typing import Any

FETCH_REFERENCES = "fanfare.fetch_references"
GENERATE_PROMPTS = "fanfare.generate_prompts"
MAP_PROMPTS = "fanfare.map_prompts"
GENERATE_IMAGE = "fanfare.generate_image"
SAVE_IMAGES = "fanfare.save_images"
TAKE_REPORTS = "fanfare.take_reports"
DELIVER_WEBHOOK = "fanfare.deliver_webhook"
SWEEP = "fanfare.sweep"
PRUNE = "fanfare.prune"

LLM_QUEUE = "llm"
DEFAULT_QUEUE = "default"
MEDIA_QUEUE = "media"
NOTIFY_QUEUE = "notify"
CPU_QUEUES = (DEFAULT_QUEUE, LLM_QUEUE, MEDIA_QUEUE, NOTIFY_QUEUE)

TASK_ROUTES: dict[str, dict[str, str]] = {
    FETCH_REFERENCES: {"queue": MEDIA_QUEUE},
    GENERATE_PROMPTS: {"queue": LLM_QUEUE},
    MAP_PROMPTS: {"queue": DEFAULT_QUEUE},
    SAVE_IMAGES: {"queue": MEDIA_QUEUE},
    TAKE_REPORTS: {"queue": DEFAULT_QUEUE},
    DELIVER_WEBHOOK: {"queue": NOTIFY_QUEUE},
    SWEEP: {"queue": DEFAULT_QUEUE},
    PRUNE: {"queue": MEDIA_QUEUE},
    # GENERATE_IMAGE has no fixed route: each clone names the queue of its model.
}

BANDS = 10  # in which messages of one queue wait, 0 first: on Redis a list each, on RabbitMQ a priority each

VISIBILITY_TIMEOUT_S = 1800  # must exceed the longest task plus the longest countdown
LEASE_S = 90  # the same for what nodes have in hand: they renew it as long as they work
RESULT_EXPIRES_S = 600  # what Celery's users have to read the end of a job; all else reads the database
CHORD_EXPIRES_S = 7 * 86400  # of pipelines that use chords


def gpu_queue(model: str) -> str:
    """The queue of one model; each node consumes those of its own catalog."""
    return f"gpu.{model}"


def priority_of(band: int, broker_url: str) -> int:
    """A band in the broker's own words: Redis takes its lowest priority first, RabbitMQ its highest."""
    return BANDS - 1 - band if _is_amqp(broker_url) else band


def _is_amqp(broker_url: str) -> bool:
    return broker_url.startswith(("amqp", "pyamqp"))


def _exchange_type(broker_url: str) -> str:
    """On Redis a direct message goes straight to its queue, while a topic's bindings are keys: a flush
    takes them away for good, and every later message vanishes. On RabbitMQ a countdown on a direct
    exchange blocks others.
    """
    return "topic" if _is_amqp(broker_url) else "direct"


def _checking_certificates(url: str) -> str:
    """Celery takes no `rediss://` URL that doesn't say whether the server's certificate is checked. It is."""
    if not url.startswith("rediss://") or "ssl_cert_reqs=" in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}ssl_cert_reqs=required"


def celery_settings(broker_url: str, result_url: str) -> dict[str, Any]:
    """Settings of both Celery apps. Why each is as it is: docs/decisions/0003-celery-settings.md."""
    return {
        "broker_url": _checking_certificates(broker_url),
        "result_backend": f"contract.results:ResultBackend+{_checking_certificates(result_url)}",
        "task_routes": TASK_ROUTES,
        "task_default_queue": DEFAULT_QUEUE,
        "task_default_exchange_type": _exchange_type(broker_url),
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_prefetch_multiplier": 1,  # nobody hoards
        "task_ignore_result": True,  # but for the task under the client's id
        "result_expires": RESULT_EXPIRES_S,
        "result_chord_expires": CHORD_EXPIRES_S,
        "result_backend_always_retry": True,
        "result_backend_max_retries": 60,
        "broker_transport_options": {
            "visibility_timeout": VISIBILITY_TIMEOUT_S,
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
            "socket_timeout": 10,
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "priority_steps": list(range(BANDS)),  # kombu's own are four
        },
        "redis_socket_timeout": 10,
        "redis_socket_connect_timeout": 2,
        "task_publish_retry_policy": {
            "max_retries": 1,
            "interval_start": 0,
            "interval_step": 0.2,
            "interval_max": 0.2,
        },
        "broker_connection_timeout": 2,
        "broker_pool_acquire_timeout": 3,
        "broker_connection_max_retries": None,
        "broker_connection_retry_on_startup": True,
        "worker_proc_alive_timeout": 600,
        "worker_send_task_events": False,
        "worker_hijack_root_logger": False,
        "worker_consumer": "contract.consumer:Consumer",
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "enable_utc": True,
        "timezone": "UTC",
    }
