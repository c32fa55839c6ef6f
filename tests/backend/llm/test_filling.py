"""The offline language model's answers: what the text says is found, and nothing is made up."""

from enum import StrEnum
from typing import Literal

import pytest
from pydantic import BaseModel, Field

from backend.errors import LLMError
from backend.llm.language import language_of
from backend.llm.template import TemplateLLM
from backend.pipelines.triage import Classification, Reply
from tests.backend.llm.test_template import MESSAGES


class Size(StrEnum):
    SMALL = "small"
    LARGE = "large"


class Order(BaseModel):
    """Fields of each kind."""

    fruit: Literal["apple", "pear", "none"] = Field(
        default="none", description="apple: red, cider; pear: green"
    )
    size: Size = Size.LARGE
    tags: list[Literal["gift", "express"]] = Field(
        default=[], description="gift: present; express: fast, hurry"
    )
    amount: int = Field(ge=1, le=20)
    price: float = Field(default=1.5)
    wrapped: bool = Field(description="paper, wrapped, bow")
    language: str
    title: str = Field(min_length=1, max_length=40)
    note: str | None = None
    where: "Place"
    kind: Literal["order"] = "order"
    colours: list[Literal["red", "blue"]]
    parts: list[str]


class Place(BaseModel):
    door: int | None = None
    text: str


def order(content: str) -> Order:
    return TemplateLLM().answer("Read the order.", content, Order)


def test_finds_what_the_text_says() -> None:
    read = order(
        "Please send 300, no: 12 small cider barrels as a present, in a hurry and wrapped with a bow"
    )
    assert (read.fruit, read.size, read.tags) == ("apple", Size.SMALL, ["gift", "express"])
    assert (read.amount, read.price, read.wrapped, read.language) == (12, 1.5, True, "en")
    assert read.title == "Please send 300, no: 12 small cider"
    assert read.note is None
    assert read.where.text.startswith("Please send 300")


def test_keeps_defaults_where_it_says_nothing() -> None:
    read = order("hello")
    assert (read.fruit, read.size, read.tags, read.wrapped) == ("none", Size.LARGE, [], False)
    assert (read.amount, read.colours, read.parts) == (1, [], ["hello"])


@pytest.mark.parametrize("name", MESSAGES)
@pytest.mark.parametrize("schema", [Order, Classification, Reply])
def test_takes_any_text_and_always_says_the_same(name: str, schema: type[BaseModel]) -> None:
    first = TemplateLLM().answer("i", MESSAGES[name], schema)
    assert first == TemplateLLM().answer("other words", MESSAGES[name], schema)


def test_says_which_field_it_can_not_fill() -> None:
    class Odd(BaseModel):
        code: str = Field(pattern="^[A-Z]{7}$")

    with pytest.raises(LLMError, match="code") as caught:
        TemplateLLM().answer("i", "hello", Odd)
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("My parcel has not arrived yet", "en"),
        ("Ich habe meine Rechnung noch nicht bekommen", "de"),
        ("Je n'ai pas reçu ma commande", "fr"),
        ("Hola, no me ha llegado el pedido y está roto", "es"),
        ("Non ho ricevuto il mio ordine", "it"),
        ("Olá, o meu pedido não chegou", "pt"),
        ("Ik heb mijn pakket niet gekregen", "nl"),
        ("Proszę o zwrot, nie mam paczki", "pl"),
        ("Jag har inte fått mitt paket", "sv"),
        ("Siparişim nasıl ve ne zaman gelir", "tr"),
        ("Где мой заказ? Я жду уже неделю", "ru"),
        ("Де моє замовлення? Я чекаю вже тиждень, її нема", "uk"),
        ("荷物がまだ届きません", "ja"),
        ("我的包裹还没有到", "zh"),
        ("소포가 아직 도착하지 않았어요", "ko"),
        ("لم يصل الطرد بعد", "ar"),
        ("החבילה לא הגיעה", "he"),
        ("मेरा पार्सल नहीं आया", "hi"),
        ("พัสดุยังไม่มาถึง", "th"),
        ("Πού είναι το δέμα μου;", "el"),
        ("12345", "und"),
        ("", "und"),
    ],
)
def test_tells_languages_apart(text: str, language: str) -> None:
    assert language_of(text) == language


@pytest.mark.parametrize(
    ("message", "topic", "urgency", "sentiment"),
    [
        ("My parcel has not arrived, and I need it by Friday!", "shipping", "high", "neutral"),
        (
            "I was charged twice on my card. Unacceptable, refund me immediately.",
            "billing",
            "high",
            "negative",
        ),
        ("The app crashes with an error", "technical", "normal", "neutral"),
        ("Thank you, the vase is wonderful", "feedback", "normal", "positive"),
        ("The cup is broken, I want to return it", "returns", "normal", "neutral"),
        ("I can't login, the password is wrong", "account", "normal", "neutral"),
        ("hm", "other", "normal", "neutral"),
    ],
)
def test_sorts_customers_messages(message: str, topic: str, urgency: str, sentiment: str) -> None:
    found = TemplateLLM().answer("i", message, Classification)
    assert (found.topic, found.urgency, found.sentiment) == (topic, urgency, sentiment)
