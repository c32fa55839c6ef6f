"""Queue names, task names, routes and the Celery settings: both apps load these, and nothing else.

A node reports to the backend by a task of the backend's, so it must route that exactly as the backend does:
that is why the routes are part of the contract.
"""

from typing import Any

from contract.addresses import amqp_tls, celery_url, is_amqp, sentinels

FETCH_REFERENCES = "fanfare.fetch_references"
GENERATE_PROMPTS = "fanfare.generate_prompts"
WRITE_PROMPTS = "fanfare.write_prompts"
RUN_STEP = "fanfare.run_step"
MAP_PROMPTS = "fanfare.map_prompts"
GENERATE_IMAGE = "fanfare.generate_image"
SAVE_IMAGES = "fanfare.save_images"
PROCESS_ITEMS = "fanfare.process_items"
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
    WRITE_PROMPTS: {"queue": LLM_QUEUE},
    RUN_STEP: {"queue": DEFAULT_QUEUE},  # most are sent to the queue that their step names
    MAP_PROMPTS: {"queue": DEFAULT_QUEUE},
    SAVE_IMAGES: {"queue": MEDIA_QUEUE},
    PROCESS_ITEMS: {"queue": MEDIA_QUEUE},
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
    return BANDS - 1 - band if is_amqp(broker_url) else band


def transport_options(broker_url: str) -> dict[str, Any]:
    """What kombu is told of a connection."""
    if is_amqp(broker_url):
        return {
            "confirm_publish": True,  # a message is sent once it is on the broker's disk
            "write_timeout": 10,
        }
    return {
        "visibility_timeout": VISIBILITY_TIMEOUT_S,
        "unacked_restore_interval": 10,
        "unacked_restore_throttle": 1,
        "socket_timeout": 10,
        "socket_connect_timeout": 2,
        "socket_keepalive": True,
        "priority_steps": list(range(BANDS)),  # kombu's own are four
        **_master(broker_url),
    }


def _master(url: str) -> dict[str, Any]:
    """Which of the servers that Sentinels watch is ours."""
    found = sentinels(url)
    return {"master_name": found.master, "sentinel_kwargs": found.patience()} if found else {}


def _result_backend(result_url: str) -> str:
    kind = "SentinelResultBackend" if sentinels(result_url) else "ResultBackend"
    return f"contract.results:{kind}+{celery_url(result_url)}"


def celery_settings(broker_url: str, result_url: str) -> dict[str, Any]:
    """Settings of both Celery apps. Why each is as it is: docs/decisions/0003-celery-settings.md."""
    return {
        "broker_url": celery_url(broker_url),
        "broker_use_ssl": amqp_tls(broker_url),  # Redis says it in its URL
        "result_backend": _result_backend(result_url),
        "result_backend_transport_options": _master(result_url),
        "task_routes": TASK_ROUTES,
        "task_default_queue": DEFAULT_QUEUE,
        # What a countdown on RabbitMQ waits in. Of what is lost with a broken disk, the sweep knows
        "broker_native_delayed_delivery_queue_type": "classic",
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_prefetch_multiplier": 1,  # nobody hoards
        "task_ignore_result": True,  # but for the task under the client's id
        "result_expires": RESULT_EXPIRES_S,
        "result_chord_expires": CHORD_EXPIRES_S,
        "result_backend_always_retry": True,
        "result_backend_max_retries": 60,
        "broker_transport_options": transport_options(broker_url),
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
        # RabbitMQ takes back what was held for longer than its consumer_timeout, and closes the channel
        "broker_channel_error_retry": is_amqp(broker_url),
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
