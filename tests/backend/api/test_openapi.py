"""What generated clients and readers of the OpenAPI rely on."""

import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest

from backend.openapi import document
from backend.pipelines import EVENTS, PIPELINES

DOCUMENT = document()
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
OPERATIONS: dict[str, dict[str, Any]] = {
    operation["operationId"]: operation for path in DOCUMENT["paths"].values() for operation in path.values()
}
OPEN_TO_ALL = {"download_file", "upload_file", "download_media", "get_health", "get_readiness"}
WITH_A_ROUTE = {name: one for name, one in PIPELINES.items() if one.has_route}
OPEN_TO_ALL = {"download_file", "upload_file", "download_media", "get_health", "get_readiness"}


def check(value: object, schema: dict[str, Any]) -> None:
    whole = schema | {"components": DOCUMENT["components"]}
    jsonschema_rs.Draft202012Validator(whole, validate_formats=True).validate(value)


def media_of(operation: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for status, response in operation["responses"].items():
        for content_type, media in response.get("content", {}).items():
            yield status, content_type, media


def examples_of(media: dict[str, Any]) -> list[Any]:
    name = media["schema"].get("$ref", "").rpartition("/")[2]
    return [media["example"]] if "example" in media else SCHEMAS[name].get("examples", [])


def test_operations_have_names_that_read_well() -> None:
    assert set(OPERATIONS) == {f"create_{name}" for name in WITH_A_ROUTE} | OPEN_TO_ALL | {
        "create_uploads", "create_product_images", "create_all_product_images",
        "get_job", "stream_job_events", "list_jobs", "cancel_job", "continue_job", "retry_job", "delete_job",
        "list_job_items",
        "list_models",
        "list_workers", "get_metrics", "get_webhook_secret", "rotate_webhook_secret",
        "create_webhook_endpoint", "list_webhook_endpoints", "get_webhook_endpoint",
        "update_webhook_endpoint", "delete_webhook_endpoint", "get_webhook_endpoint_secret",
        "rotate_webhook_endpoint_secret", "list_webhook_deliveries", "get_webhook_delivery",
        "redeliver_webhook",
        "create_product", "list_products", "get_product", "replace_product", "delete_product",
        "export_products", "import_products",
        "create_event", "get_event", "list_events", "list_event_types", "get_task_status",
    }  # fmt: skip


@pytest.mark.parametrize("operation_id", OPERATIONS)
def test_each_operation_is_told_in_full(operation_id: str) -> None:
    operation = OPERATIONS[operation_id]
    known_tags = {tag["name"] for tag in DOCUMENT["tags"]}
    assert operation["summary"]
    assert operation["description"]
    assert set(operation["tags"]) <= known_tags
    assert ("security" in operation) is (operation_id not in OPEN_TO_ALL)
    for parameter in operation.get("parameters", []):
        assert parameter["description"], parameter
        assert "null" not in str(parameter["schema"]), "a URL or a header has no null"
    for response in operation["responses"].values():
        assert response["description"] != "Successful Response"
        assert "X-Request-ID" in response["headers"]


def test_a_key_does_or_a_users_token() -> None:
    assert DOCUMENT["components"]["securitySchemes"]["AccessToken"]["bearerFormat"] == "JWT"
    for operation_id in set(OPERATIONS) - OPEN_TO_ALL:
        schemes = [name for either in OPERATIONS[operation_id]["security"] for name in either]
        expected = ["ApiKey"] if operation_id == "get_metrics" else ["ApiKey", "AccessToken"]
        assert schemes == expected, operation_id


@pytest.mark.parametrize("operation_id", OPERATIONS)
def test_each_json_answer_has_a_true_example(operation_id: str) -> None:
    for status, content_type, media in media_of(OPERATIONS[operation_id]):
        assert (content_type == "application/problem+json") is (status >= "400" and "Problem" in str(media))
        if "json" in content_type:
            examples = examples_of(media)
            assert examples, (operation_id, status)
            for example in examples:
                check(example, media["schema"])


def test_requests_have_a_true_example() -> None:
    for name, pipeline in WITH_A_ROUTE.items():
        media = OPERATIONS[f"create_{name}"]["requestBody"]["content"]["application/json"]
        for example in examples_of(media):
            check(example, media["schema"])
            pipeline.request_schema.model_validate(example)


def test_events_have_true_examples_too() -> None:
    media = OPERATIONS["create_event"]["requestBody"]["content"]["application/json"]
    examples = examples_of(media)
    assert {example["type"] for example in examples} == set(EVENTS), "each type has one"
    for example in examples:
        check(example, media["schema"])
        EVENTS[example["type"]].data_schema.model_validate(example["data"])


def test_schemas_have_the_names_of_things() -> None:
    for name, schema in SCHEMAS.items():
        assert re.fullmatch(r"[A-Z][A-Za-z]+(?<!Input)(?<!Output)(?<!View)", name), name
        assert name == "JsonValue" or schema["description"], name
