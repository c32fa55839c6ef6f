"""An example of each answer, for the OpenAPI; the tests hold them against their schemas."""

from typing import Any

TASK_ID = "01939c5e-8b1d-7f60-a7c2-e4d6b8f0a1c3"
REQUEST_ID = "3f2a9c5e8b1d4f60a7c2e4d6b8f0a1c3"

_JOB_URL = f"http://127.0.0.1:8000/v1/jobs/{TASK_ID}"
_FILES = "http://127.0.0.1:8000/v1/files/jobs"
_SIGNED = "?expires=1767229200&signature=7mT0cQ"

_GOOD_IMAGE: dict[str, Any] = {
    "id": "5d3a1f4e-9d0c-5b77-8a43-0f5f4b1c2d3e", "index": 0, "status": "completed",
    "prompt": "A bookshop window at dusk, autumn leaves, warm lamplight, watercolour",
    "model": "sketch", "seed": 42, "width": 1024, "height": 1024,
    "content_type": "image/webp", "bytes": 183220,
    "url": f"{_FILES}/{TASK_ID}/000/original.webp{_SIGNED}", "url_expires_at": "2026-01-01T01:00:00Z",
    "placeholder": {"blurhash": "LEHV6nWB2yk8pyo0adR*.7kCMdnj", "color": "#b5651d"},
    "srcset": f"{_FILES}/{TASK_ID}/000/thumbnail-512.webp{_SIGNED} 512w",
    "thumbnails": [
        {"width": 512, "height": 512, "content_type": "image/webp", "bytes": 20311,
         "url": f"{_FILES}/{TASK_ID}/000/thumbnail-512.webp{_SIGNED}"},
    ],
    "timings": {"queued_ms": 310, "generate_ms": 2100, "store_ms": 90},
    "made_with": {"engine": "sketch"}, "attempts": 1, "error": None,
}  # fmt: skip
_FAILED_IMAGE: dict[str, Any] = dict.fromkeys(_GOOD_IMAGE) | {
    "id": "b1c9a7d2-3f6e-5c11-9e58-7a2d4c6b8e90", "index": 1, "status": "failed",
    "prompt": "A stack of old books beside a red maple branch, morning light, linocut",
    "model": "sketch", "seed": 43, "thumbnails": [], "made_with": {}, "attempts": 2,
    "timings": {"queued_ms": None, "generate_ms": None, "store_ms": None},
    "error": {"code": "out_of_memory", "message": "The device ran out of memory.", "retryable": True},
}  # fmt: skip
_JOB: dict[str, Any] = {
    "task_id": TASK_ID, "pipeline": "thumbnails", "status": "partially_completed", "waiting_for": None,
    "progress": {"completed": 1, "failed": 1, "total": 2, "fraction": 1.0},
    "input": {
        "message": "autumn sale for a small bookshop", "count": 2, "model": "sketch", "width": 1024,
        "height": 1024, "steps": None, "guidance": None, "negative_prompt": None, "title": None, "seed": 42,
        "output_format": "webp", "thumbnail_sizes": [512],
    },
    "images": [_GOOD_IMAGE, _FAILED_IMAGE], "error": None, "metadata": {"order": "17"},
    "created_at": "2026-01-01T00:00:00Z", "started_at": "2026-01-01T00:00:00.310000Z",
    "completed_at": "2026-01-01T00:00:04.200000Z", "expires_at": None,
    "urls": {
        "get": _JOB_URL, "events": f"{_JOB_URL}/events", "cancel": f"{_JOB_URL}/cancel",
        "retry": f"{_JOB_URL}/retry",
    },
}  # fmt: skip
_MODEL: dict[str, Any] = {
    "name": "sketch", "engine": "sketch", "description": "Composed pictures; no GPU, no weights.",
    "tasks": ["text-to-image"], "min_size": 64, "max_size": 2048, "size_multiple": 8, "max_steps": 50,
    "default_width": 1024, "default_height": 1024, "default_steps": None, "default_guidance": None,
    "can_set_title": True, "default": True, "workers": 1, "loaded": 1,
}  # fmt: skip
_WORKER: dict[str, Any] = {
    "name": "gpu-7f3c", "version": "0.1.0",
    "device": {"kind": "cuda", "name": "NVIDIA L4", "index": 0, "memory_bytes": 24_000_000_000},
    "models": ["sketch"], "loaded": ["sketch"], "state": "ready", "concurrency": 4, "running": 1, "done": 128,
    "failed": 0, "started_at": "2026-01-01T00:00:00Z", "seen_at": "2026-01-01T08:00:00Z",
}  # fmt: skip
_CURSOR = "http://127.0.0.1:8000/v1/jobs?limit=20&cursor=YgGTnF6LHX9gp8Lk1rjwocM"

EXAMPLES: dict[str, dict[str, Any]] = {  # by the name of the schema
    "Job": _JOB,
    "JobPage": {"results": [_JOB], "next": _CURSOR, "previous": None},
    "ModelList": {"results": [_MODEL]},
    "WorkerList": {"results": [_WORKER]},
    "WebhookSecret": {"secret": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"},
    "Health": {"status": "ok"},
    "Readiness": {
        "status": "ready",
        "checks": {name: {"ok": True, "detail": ""} for name in ("database", "broker", "storage")},
    },
}

UNREADY: dict[str, Any] = {
    "status": "unready",
    "checks": {
        "database": {"ok": True, "detail": ""},
        "broker": {"ok": False, "detail": "can't be reached"},
        "storage": {"ok": True, "detail": ""},
    },
}
