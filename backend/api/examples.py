"""An example of each answer, for the OpenAPI; the tests hold them against their schemas."""

from typing import Any

TASK_ID = "01939c5e-8b1d-7f60-a7c2-e4d6b8f0a1c3"
ENDPOINT_ID = "01939c5e-9a40-7d12-8b3f-5c6d7e8f9a0b"
DELIVERY_ID = "01939c5e-9f77-7ac4-9e21-0d1c2b3a4f5e"
PRODUCT_ID = "01939c5e-a1b2-7c3d-9e4f-5a6b7c8d9e0f"
REQUEST_ID = "3f2a9c5e8b1d4f60a7c2e4d6b8f0a1c3"

_JOB_URL = f"http://127.0.0.1:8000/v1/jobs/{TASK_ID}"
_FILES = "http://127.0.0.1:8000/v1/files/jobs"
_SIGNED = "?expires=1767229200&signature=7mT0cQ"

_GOOD_IMAGE: dict[str, Any] = {
    "id": "5d3a1f4e-9d0c-5b77-8a43-0f5f4b1c2d3e", "index": 0, "status": "completed",
    "prompt": "A bookshop window at dusk, autumn leaves, warm lamplight, watercolour",
    "model": "sdxl", "seed": 42, "width": 1024, "height": 1024,
    "content_type": "image/webp", "bytes": 183220,
    "sha256": "5a0c3b1f6f0a4c52b8c0d7f1b9e8a4d3c2b1a0f9e8d7c6b5a4938271605f4e3d",
    "url": f"{_FILES}/{TASK_ID}/000/original.webp{_SIGNED}", "url_expires_at": "2026-01-01T01:00:00Z",
    "placeholder": {"blurhash": "LEHV6nWB2yk8pyo0adR*.7kCMdnj", "color": "#b5651d"},
    "srcset": f"{_FILES}/{TASK_ID}/000/thumbnail-512.webp{_SIGNED} 512w",
    "thumbnails": [
        {"width": 512, "height": 512, "content_type": "image/webp", "bytes": 20311,
         "url": f"{_FILES}/{TASK_ID}/000/thumbnail-512.webp{_SIGNED}"},
    ],
    "timings": {
        "queued_ms": 310, "generate_ms": 2100, "load_ms": 0, "encode_ms": 12, "denoise_ms": 1930,
        "decode_ms": 140, "store_ms": 90, "upload_ms": 50,
    },
    "made_with": {
        "engine": "diffusers", "revision": "462165984030d82259a11f4367a4eed129e94a7b", "scheduler": "euler",
        "steps": 30, "guidance": 5.0, "dtype": "bfloat16", "device": "NVIDIA L4", "batch": 4,
    },
    "reproduces": None, "attempts": 1, "error": None,
}  # fmt: skip
_FAILED_IMAGE: dict[str, Any] = dict.fromkeys(_GOOD_IMAGE) | {
    "id": "b1c9a7d2-3f6e-5c11-9e58-7a2d4c6b8e90", "index": 1, "status": "failed",
    "prompt": "A stack of old books beside a red maple branch, morning light, linocut",
    "model": "sdxl", "seed": 43, "thumbnails": [], "made_with": {}, "attempts": 2,
    "timings": dict.fromkeys(_GOOD_IMAGE["timings"]),
    "error": {"code": "out_of_memory", "message": "The device ran out of memory.", "retryable": True},
}  # fmt: skip
_JOB: dict[str, Any] = {
    "task_id": TASK_ID, "pipeline": "thumbnails", "status": "partially_completed", "waiting_for": None,
    "progress": {"completed": 1, "failed": 1, "total": 2, "fraction": 1.0},
    "input": {
        "message": "autumn sale for a small bookshop", "count": 2, "model": "sdxl", "width": 1024,
        "height": 1024, "steps": None, "guidance": None, "negative_prompt": None, "scheduler": None,
        "loras": [{"name": "watercolour", "weight": 0.8}], "title": None, "seed": 42, "reproducible": False,
        "review": False, "preview": True, "output_format": "webp", "thumbnail_sizes": [512],
    },
    "images": [_GOOD_IMAGE, _FAILED_IMAGE], "items": [], "output": None, "error": None,
    "metadata": {"order": "17"},
    "created_at": "2026-01-01T00:00:00Z", "started_at": "2026-01-01T00:00:00.310000Z",
    "completed_at": "2026-01-01T00:00:04.200000Z", "cancel_at": None, "expires_at": None,
    "urls": {
        "get": _JOB_URL, "events": f"{_JOB_URL}/events", "cancel": f"{_JOB_URL}/cancel",
        "retry": f"{_JOB_URL}/retry", "items": f"{_JOB_URL}/items",
    },
}  # fmt: skip
_MEDIA = f"http://127.0.0.1:8000/v1/media/jobs/{TASK_ID}/000/9f2c41d07be35a68"
_ITEM: dict[str, Any] = {
    "id": "0c7e1b52-64d8-5f0e-9a37-8b21c4d5e6f7", "index": 0, "status": "completed", "filename": "shop.jpg",
    "source_url": None, "product_id": None, "upload": None, "url": f"{_MEDIA}.jpeg?signature=7mT0cQ",
    "width": 1600, "height": 1200, "content_type": "image/jpeg", "bytes": 214003, "original_bytes": 4810222,
    "sha256": "9f2c41d07be35a685a0c3b1f6f0a4c52b8c0d7f1b9e8a4d3c2b1a0f9e8d7c6b5",
    "srcset": f"{_MEDIA}-200x150.webp?signature=pQ81zk 200w",
    "thumbnails": [
        {"width": 200, "height": 150, "content_type": "image/webp", "bytes": 6120,
         "url": f"{_MEDIA}-200x150.webp?signature=pQ81zk"},
    ],
    "attempts": 1, "error": None,
}  # fmt: skip
_MODEL: dict[str, Any] = {
    "name": "sdxl", "engine": "diffusers", "description": "Stable Diffusion XL 1.0.", "family": "sdxl",
    "revision": "462165984030d82259a11f4367a4eed129e94a7b", "license": "CreativeML Open RAIL++-M",
    "tasks": ["text-to-image", "image-to-image", "inpainting"], "min_size": 512, "max_size": 2048,
    "size_multiple": 8, "max_pixels": 1_572_864, "max_steps": 100, "default_width": 1024,
    "default_height": 1024, "default_steps": 30, "default_guidance": 5.0, "default_strength": 0.6,
    "schedulers": ["ddim", "euler"], "default_scheduler": "euler",
    "loras": [
        {"name": "watercolour", "description": "Wet on wet.", "default_weight": 0.8, "license": None},
    ],
    "max_loras": 2, "can_set_title": False, "can_negative_prompt": True, "can_preview": True,
    "can_reproduce": True, "default": True, "workers": 2, "loaded": 1, "loading": 1,
    "waiting": 37, "running": 8, "oldest_wait_s": 41.5,
}  # fmt: skip
_WORKER: dict[str, Any] = {
    "name": "gpu-7f3c", "version": "0.1.0",
    "device": {"kind": "cuda", "name": "NVIDIA L4", "index": 0, "memory_bytes": 24_000_000_000},
    "models": ["sdxl", "flux-schnell"], "loaded": ["sdxl"], "loading": ["flux-schnell"], "state": "ready",
    "concurrency": 4, "running": 1, "doing": "sdxl: 1 image, step 12 of 30",
    "memory_used_bytes": 9_200_000_000, "done": 128, "failed": 0, "started_at": "2026-01-01T00:00:00Z",
    "seen_at": "2026-01-01T08:00:00Z",
}  # fmt: skip
_CURSOR = "http://127.0.0.1:8000/v1/jobs?limit=20&cursor=YgGTnF6LHX9gp8Lk1rjwocM"

_ENDPOINT: dict[str, Any] = {
    "id": ENDPOINT_ID, "url": "https://example.com/hooks/fanfare", "events": ["job.completed", "job.failed"],
    "description": "the shop", "enabled": True, "disabled_reason": None,
    "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
}  # fmt: skip
_DELIVERY: dict[str, Any] = {
    "id": DELIVERY_ID, "webhook_id": f"msg_{TASK_ID.replace('-', '')}_9", "task_id": TASK_ID,
    "endpoint_id": ENDPOINT_ID, "type": "job.completed", "status": "delivered", "attempts": 2,
    "last_error": None, "created_at": "2026-01-01T00:00:04.200000Z", "next_attempt_at": None,
    "delivered_at": "2026-01-01T00:00:09.900000Z",
}  # fmt: skip
_ATTEMPTS: list[dict[str, Any]] = [
    {"started_at": "2026-01-01T00:00:04.210000Z", "status_code": 500,
     "reason": "The receiver answered 500.", "duration_ms": 48},
    {"started_at": "2026-01-01T00:00:09.850000Z", "status_code": 204, "reason": None, "duration_ms": 50},
]  # fmt: skip

_PRODUCT_MEDIA = f"http://127.0.0.1:8000/v1/media/products/{PRODUCT_ID}/0e8d5a52-6c0f-5d3b-9a11-2b7c4d6e8f90"
_PRODUCT: dict[str, Any] = {
    "id": PRODUCT_ID, "serial_number": "LAMP-17", "name": "Desk lamp, brass",
    "images": [
        {"id": "0e8d5a52-6c0f-5d3b-9a11-2b7c4d6e8f90", "input_url": "https://example.com/lamp/front.jpg",
         "status": "completed",
         "output_url": f"{_PRODUCT_MEDIA}/9f2c41d07be35a68.webp?signature=mZ41cD",
         "width": 600, "height": 800, "content_type": "image/webp", "bytes": 48211,
         "sha256": "5a0c3b1f6f0a4c52b8c0d7f1b9e8a4d3c2b1a0f9e8d7c6b5a4938271605f4e3d", "scale": 0.5,
         "thumbnails": [], "task_id": TASK_ID, "error": None, "updated_at": "2026-01-01T00:00:09Z"},
        {"id": "7f1c9b3a-2d4e-5f60-8b7a-1c3d5e7f9a0b", "input_url": "https://example.com/lamp/back.jpg",
         "status": "failed", "output_url": None, "width": None, "height": None, "content_type": None,
         "bytes": None, "sha256": None, "scale": None, "thumbnails": [], "task_id": TASK_ID,
         "error": {
             "code": "source_unavailable", "message": "example.com answered 404.", "retryable": True,
         },
         "updated_at": "2026-01-01T00:00:09Z"},
    ],
    "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
}  # fmt: skip
_EVENT_TYPE = "customer_message.received"
_CLASSIFIED = {"topic": "shipping", "urgency": "high", "sentiment": "neutral", "language": "en"}
_REPLY = {"subject": "Your delivery", "body": "Thank you for your message. We are asking the courier."}
_ROUTED = {
    "team": "logistics", "urgency": "high", "answer_within_h": 2, "escalate": False, "topic": "shipping",
    "sentiment": "neutral", "language": "en", "reply": _REPLY,
}  # fmt: skip
_EVENT: dict[str, Any] = {
    "event_id": TASK_ID, "task_id": TASK_ID, "type": _EVENT_TYPE, "status": "completed",
    "data": {
        "message": "My parcel has not arrived, and I need it by Friday!", "from": "ann@example.com",
        "subject": None, "channel": "email",
    },
    "steps": [
        {"name": name, "status": "completed", "completed_at": f"2026-01-01T00:00:0{second}Z"}
        for second, name in enumerate(("classify", "draft_reply", "route"), start=1)
    ],
    "task_context": {"classify": _CLASSIFIED, "draft_reply": _REPLY, "route": _ROUTED},
    "output": _ROUTED, "error": None, "metadata": {"ticket": "4711"},
    "created_at": "2026-01-01T00:00:00Z", "started_at": "2026-01-01T00:00:00.100000Z",
    "completed_at": "2026-01-01T00:00:03Z", "expires_at": None, "urls": _JOB["urls"],
}  # fmt: skip

EXAMPLES: dict[str, dict[str, Any]] = {  # by the name of the schema
    "Job": _JOB,
    "WaitingFor": {
        "reason": "ahead_of_you",
        "message": "12 images are ahead.",
        "position": 12,
        "estimate_s": 26,
    },
    "JobPage": {"results": [_JOB], "next": _CURSOR, "previous": None},
    "Item": _ITEM,
    "ItemPage": {"results": [_ITEM], "next": f"{_JOB_URL}/items?limit=100&cursor=99"},
    "Event": _EVENT,
    "EventPage": {"results": [_EVENT], "next": None, "previous": None},
    "EventTypeList": {
        "results": [
            {
                "type": _EVENT_TYPE,
                "pipeline": "triage",
                "summary": "Sort a customer's message and draft the reply",
                "description": "Tells topic, urgency, sentiment and language, and drafts a reply.",
                "steps": ["classify", "draft_reply", "route"],
                "data_schema": {
                    "type": "object",
                    "required": ["message"],
                    "additionalProperties": False,
                    "properties": {"message": {"type": "string", "maxLength": 16000}},
                },
            }
        ]
    },
    "TaskStatus": {
        "task_id": TASK_ID,
        "status": "SUCCESS",
        "result": {
            "images": [_GOOD_IMAGE],
            "items": [],
            "output": None,
            "failed": [{"index": 1, "code": "out_of_memory", "message": "The device ran out of memory."}],
        },
    },
    "ModelList": {"results": [_MODEL]},
    "WorkerList": {"results": [_WORKER]},
    "WebhookSecret": {
        "secret": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
        "old_secret_until": "2026-01-02T00:00:00Z",
    },
    "NewWebhookEndpoint": {
        "url": "https://example.com/hooks/fanfare",
        "events": ["job.completed", "job.failed"],
        "description": "the shop",
    },
    "WebhookEndpointChange": {"enabled": False},
    "WebhookEndpoint": _ENDPOINT,
    "WebhookEndpointList": {"results": [_ENDPOINT]},
    "WebhookDelivery": _DELIVERY,
    "WebhookDeliveryWithLog": _DELIVERY | {"log": _ATTEMPTS},
    "WebhookDeliveryPage": {"results": [_DELIVERY], "next": None, "previous": None},
    "Product": _PRODUCT,
    "ProductPage": {"results": [_PRODUCT], "next": None, "previous": None},
    "ProductImport": {
        "created": 480,
        "updated": 17,
        "unchanged": 2,
        "failed_count": 1,
        "failed": [{"line": 3, "serial_number": "LAMP-18", "detail": "product name: must not be blank"}],
        "task_id": None,
    },
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
