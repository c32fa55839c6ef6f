"""The plan and the load are pure functions of the seed, and leave no kind of fault out."""

import io
import json
from itertools import pairwise

from PIL import Image

from scripts.havoc.blows import BLOWS
from scripts.havoc.orders import POISON, make_orders
from scripts.havoc.plan import KINDS, make_plan


def test_the_same_seed_makes_the_same_plan_and_another_another() -> None:
    assert make_plan(3, 20, 200) == make_plan(3, 20, 200)
    assert make_plan(3, 20, 200) != make_plan(4, 20, 200)


def test_every_kind_comes_once_before_one_comes_twice() -> None:
    plan = make_plan(1, 2 * len(KINDS), 240)

    assert {blow.kind for blow in plan[: len(KINDS)]} == set(KINDS)
    assert {blow.kind for blow in plan[len(KINDS) :]} == set(KINDS)


def test_faults_are_spread_over_the_time_and_last_as_long_as_their_kind() -> None:
    plan = make_plan(1, 24, 240)

    assert [blow.number for blow in plan] == list(range(1, 25))
    assert all(1 < later.at_s - sooner.at_s < 18 for sooner, later in pairwise(plan))
    assert 0 < plan[0].at_s < plan[-1].at_s < 240
    for blow in plan:
        targets, shortest, longest = KINDS[blow.kind]
        assert blow.target in targets
        assert shortest <= blow.seconds <= longest


def test_there_is_a_way_to_do_each_kind() -> None:
    assert set(BLOWS) == set(KINDS)


def test_orders_have_keys_and_seeds_of_their_own() -> None:
    orders = make_orders(1, 300, 4, 240)

    assert orders == make_orders(1, 300, 4, 240)
    assert len({order.key for order in orders}) == len({order.seed for order in orders}) == 300
    assert 0 < sum(order.cancels for order in orders) < 40
    poisoned = [order for order in orders if POISON in order.message]
    assert 0 < len(poisoned) < 12
    assert {order.count for order in poisoned} == {1}


def test_an_order_without_a_webhook_asks_for_none() -> None:
    for order in make_orders(1, 20, 4, 10):
        request = order.request("http://127.0.0.1:1/")
        body = json.loads(request["data"]["request"]) if order.uploads else request["json"]
        assert ("webhook" in body) == order.webhook


def test_some_orders_are_files_of_which_some_are_none() -> None:
    uploads = [order for order in make_orders(1, 300, 4, 240) if order.uploads]
    assert 40 < len(uploads) < 150
    assert 5 < sum(order.broken is not None for order in uploads) < len(uploads)
    for order in uploads[:20]:
        files = order.request("http://127.0.0.1:1/")["files"]
        assert files == order.request("http://127.0.0.1:1/")["files"], "else its key would not bring the same"
        good = [content for index, (_, (_, content)) in enumerate(files) if index != order.broken]
        assert {Image.open(io.BytesIO(content)).size for content in good} == {(order.side, order.side)}
        assert len(set(good)) == len(good)
