"""What both Celery apps are told."""

import inspect

import pytest

from contract import queues
from contract.queues import TASK_ROUTES, celery_settings


def test_every_task_but_the_clones_has_a_route() -> None:
    names = {value for name, value in inspect.getmembers(queues) if str(value).startswith("fanfare.")}
    assert names - set(TASK_ROUTES) == {queues.GENERATE_IMAGE}
    assert {route["queue"] for route in TASK_ROUTES.values()} <= set(queues.CPU_QUEUES)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("rediss://h:1/0", "rediss://h:1/0?ssl_cert_reqs=required"),
        ("rediss://h:1/0?a=b", "rediss://h:1/0?a=b&ssl_cert_reqs=required"),
        ("rediss://h:1/0?ssl_cert_reqs=none", "rediss://h:1/0?ssl_cert_reqs=none"),
        ("redis://h:1/0", "redis://h:1/0"),
    ],
)
def test_certificates_are_checked_unless_somebody_says_otherwise(url: str, expected: str) -> None:
    settings = celery_settings(url, url)
    assert settings["broker_url"] == expected
    assert settings["result_backend"].endswith(f"+{expected}")
