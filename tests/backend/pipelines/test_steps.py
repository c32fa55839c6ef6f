"""What is wrong with a pipeline is said when it is declared, not when its first event comes."""

from typing import Any

import pytest

from backend.pipelines.base import RequestModel
from backend.pipelines.steps import EventPipeline, Step, check_names


class Note(RequestModel):
    text: str


def step(name: str, queue: str = "default") -> Step[Note]:
    return Step(name, lambda parts, context: {}, queue)


def pipeline(name: str, event_type: str, *steps: Step[Note]) -> EventPipeline[Any]:
    return EventPipeline(name, event_type, "s", "d", Note, steps or (step("read"),))


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([step("read"), step("read")], r"pipeline notes needs steps, each with a name of its own: \['read"),
        ([step("read", "gpu.sketch")], r"pipeline notes has steps in \['gpu.sketch'\]; queues are"),
    ],
)
def test_steps_that_could_not_be_done(steps: list[Step[Note]], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        pipeline("notes", "note.taken", *steps)


def test_a_pipeline_has_steps() -> None:
    with pytest.raises(ValueError, match="needs steps"):
        EventPipeline("notes", "note.taken", "s", "d", Note, ())


def test_names_and_types_of_events_are_used_once() -> None:
    notes, letters = pipeline("notes", "note.taken"), pipeline("letters", "letter.came")
    check_names({"notes": notes, "letters": letters})
    with pytest.raises(ValueError, match="as 'note' whose name is 'notes'"):
        check_names({"note": notes})
    with pytest.raises(ValueError, match="notes and memos both take events of type"):
        check_names({"notes": notes, "memos": pipeline("memos", "note.taken")})
