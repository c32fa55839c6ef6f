"""URLs as users write them, and as Celery, redis-py and py-amqp take them."""

import ssl

import pytest

from contract.addresses import amqp_tls, celery_url, sentinels
from contract.queues import celery_settings

URL = "sentinel://me:s%40cret@a:26380/3;sentinel://b;sentinel://[::1]:7?master_name=mine"


def test_sentinels_are_told_who_and_where() -> None:
    found = sentinels(URL)
    assert found
    assert found.hosts == (("a", 26380), ("b", 26379), ("::1", 7))
    assert (found.master, found.username, found.password, found.database) == ("mine", "me", "s@cret", 3)


def test_celery_is_told_the_same_of_each_sentinel() -> None:
    settings = celery_settings(URL, URL)
    each = [f"sentinel://me:s%40cret@{host}/3" for host in ("a:26380", "b:26379", "[::1]:7")]
    assert settings["broker_url"] == ";".join(each)
    assert settings["result_backend"] == f"contract.results:SentinelResultBackend+{';'.join(each)}"
    assert settings["broker_transport_options"]["master_name"] == "mine"
    assert settings["result_backend_transport_options"]["master_name"] == "mine"


def test_a_sentinel_without_a_master_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\?master_name=mymaster"):
        sentinels("sentinel://a:26379/0")


@pytest.mark.parametrize("url", ["redis://h/0", "rediss://h/0", "unix:///run/redis", "amqp://h"])
def test_others_have_no_master(url: str) -> None:
    assert sentinels(url) is None


def test_certificates_of_rabbitmq_are_checked_unless_somebody_says_otherwise() -> None:
    assert amqp_tls("amqp://h") is None
    assert amqp_tls("amqps://me:pw@h:5671/v") == {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": "h"}
    given = amqp_tls("amqps://h/v?ssl_ca_certs=/ca.pem&ssl_certfile=/me.pem&ssl_keyfile=/me.key")
    assert given
    assert (given["ca_certs"], given["certfile"], given["keyfile"]) == ("/ca.pem", "/me.pem", "/me.key")
    unchecked = amqp_tls("amqps://h/v?ssl_cert_reqs=none")
    assert unchecked == {"cert_reqs": ssl.CERT_NONE, "server_hostname": None}
    with pytest.raises(ValueError, match="ssl_cert_reqs"):
        amqp_tls("amqps://h/v?ssl_cert_reqs=maybe")


def test_the_query_is_not_for_celery() -> None:
    assert celery_url("amqps://a/v?ssl_ca_certs=/x;amqps://b/v?ssl_ca_certs=/x") == "amqps://a/v;amqps://b/v"
