"""Customer messages: what each is about, a draft of the reply, and who is to answer it by when."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from backend.pipelines.base import RequestModel, Text
from backend.pipelines.steps import Context, EventPipeline, Step
from backend.resources import Resources
from contract.queues import LLM_QUEUE

Topic = Literal["billing", "shipping", "returns", "technical", "account", "sales", "feedback", "other"]
Urgency = Literal["low", "normal", "high"]

_TEAMS: dict[str, str] = {
    "billing": "finance", "shipping": "logistics", "returns": "logistics", "technical": "support",
    "account": "support", "sales": "sales", "feedback": "care", "other": "care",
}  # fmt: skip
_ANSWER_WITHIN_H: dict[str, int] = {"high": 2, "normal": 24, "low": 72}

_CLASSIFY = "You sort the messages that customers send to a shop."
_DRAFT = """\
You draft the reply to a customer's message, for somebody of the shop to read before it is sent. Write in \
the language with the code {language}, in two to five sentences: polite and plain, about what the customer \
says. You know nothing of the order but what is in the message: promise nothing, neither money nor dates, \
ask for what is missing, and name no address, link or number that isn't in the message."""


class CustomerMessage(RequestModel):
    """What a customer wrote."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"message": "My parcel has not arrived, and I need it by Friday!", "from": "ann@example.com"}
            ]
        }
    )

    message: Text = Field(min_length=1, max_length=16_000, description="In any language.")
    sender: Text | None = Field(
        default=None, alias="from", max_length=320, description="Name or address of the customer."
    )
    subject: Text | None = Field(default=None, max_length=500)
    channel: Literal["email", "chat", "form", "phone", "social"] | None = Field(
        default=None, description="How it came."
    )


class Classification(BaseModel):
    """What a message is about."""

    topic: Topic = Field(
        default="other",
        description="billing: invoice, payment, charged, refund, price, card; "
        "shipping: parcel, package, delivery, arrived, courier, tracking, late, address; "
        "returns: return, exchange, broken, damaged, wrong size, warranty; "
        "technical: error, crash, bug, website, app, loading, does not work; "
        "account: login, password, account, email, unsubscribe, delete my data; "
        "sales: buy, offer, quote, stock, available, discount, wholesale; "
        "feedback: review, suggestion, thank, praise, complaint about service; other: none of these",
    )
    urgency: Urgency = Field(
        default="normal",
        description="high: urgent, immediately, today, tomorrow, asap, deadline, lawyer, fraud, danger, "
        "Friday, wedding, birthday; low: whenever, no hurry, suggestion, curious; normal: all else",
    )
    sentiment: Literal["negative", "neutral", "positive"] = Field(
        default="neutral",
        description="negative: angry, disappointed, terrible, unacceptable, worst, annoyed, frustrated; "
        "positive: thank, great, love, happy, wonderful, excellent; neutral: neither",
    )
    language: str = Field(
        pattern="^[a-z]{2,3}$", description="Of the message: its ISO 639-1 code, or und.", examples=["en"]
    )


_REPLIES = [  # what good ones look like; the template language model takes the one that fits best
    "Thank you for your message. We are looking into it, and will come back to you.",
    "Thank you for your message about billing. Please send us the number of the invoice, if you can.",
    "Thank you for your message about shipping. Please send us the number of your order: we ask the courier.",
    "Thank you for your message about returns. Please send us a picture if something is broken or damaged.",
    "We are sorry for the technical trouble. Please tell us what you did before the error, and in which app.",
]


class Reply(BaseModel):
    """A draft: somebody reads it before it goes out."""

    subject: str = Field(
        min_length=1,
        max_length=200,
        description="One line.",
        examples=[
            "Your message",
            "Your billing question",
            "Your shipping question",
            "Your technical question",
        ],
    )
    body: str = Field(
        min_length=1,
        max_length=4000,
        description="The reply, from greeting to closing, without a name.",
        examples=_REPLIES,
    )


def classify(parts: Resources, context: Context[CustomerMessage]) -> Classification:
    """Topic, urgency, sentiment and language."""
    return parts.llm.answer(_CLASSIFY, _as_text(context.data), Classification)


def draft_reply(parts: Resources, context: Context[CustomerMessage]) -> Reply:
    """In the customer's language."""
    found = context.outputs["classify"]
    content = f"[{found['topic']}]\n\n{_as_text(context.data)}"
    return parts.llm.answer(_DRAFT.format(language=found["language"]), content, Reply)


def route(parts: Resources, context: Context[CustomerMessage]) -> dict[str, Any]:  # noqa: ARG001 - a step's
    """Who answers it and by when: rules, so that they can be read."""
    found = context.outputs["classify"]
    upset = found["sentiment"] == "negative"
    urgency = "high" if upset and found["urgency"] == "normal" else found["urgency"]
    return {
        "team": _TEAMS[found["topic"]],
        "urgency": urgency,
        "answer_within_h": _ANSWER_WITHIN_H[urgency],
        "escalate": upset and urgency == "high",
        "topic": found["topic"],
        "sentiment": found["sentiment"],
        "language": found["language"],
        "reply": context.outputs["draft_reply"],
    }


def _as_text(data: CustomerMessage) -> str:
    """As the language model gets it."""
    return f"{data.subject}\n\n{data.message}" if data.subject else data.message


TRIAGE = EventPipeline(
    name="triage",
    event_type="customer_message.received",
    summary="Sort a customer's message and draft the reply",
    description="Tells topic, urgency, sentiment and language, drafts a reply in that language, and says "
    "which team answers by when. The draft is for a person to read: nothing is sent.",
    data_schema=CustomerMessage,
    steps=(
        Step("classify", classify, LLM_QUEUE),
        Step("draft_reply", draft_reply, LLM_QUEUE),
        Step("route", route),
    ),
)
