"""What the API answers, as far as the command line needs it. Tolerant: a newer server may say more."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, PrivateAttr

ENDED = frozenset({"completed", "partially_completed", "failed", "canceled"})


class Answer(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(extra="ignore")


class ItemError(Answer):
    """Why a job or an image failed."""

    code: str
    message: str
    retryable: bool = False


class Thumbnail(Answer):
    """A smaller copy of an image."""

    width: int
    height: int
    content_type: str
    bytes: int
    url: str


class JobImage(Answer):
    """One image of a job."""

    index: int
    status: str
    prompt: str = ""
    content_type: str | None = None
    bytes: int | None = None
    url: str | None = None
    thumbnails: list[Thumbnail] = []
    error: ItemError | None = None


class JobItem(Answer):
    """One file of a job that takes files."""

    index: int
    status: str
    filename: str | None = None
    source_url: str | None = None
    width: int | None = None
    height: int | None = None
    bytes: int | None = None
    error: ItemError | None = None

    @property
    def name(self) -> str:
        """What its owner calls it."""
        return self.filename or self.source_url or ""


class JobProgress(Answer):
    """How far a job is, in images, files or steps."""

    completed: int = 0
    failed: int = 0
    total: int = 0
    fraction: float = 0.0


class WaitingFor(Answer):
    """Why a job waits."""

    reason: str
    message: str = ""


class Job(Answer):
    """One job. `raw` is what the server said, with nothing left out."""

    task_id: str
    pipeline: str = ""
    status: str
    waiting_for: WaitingFor | None = None
    progress: JobProgress = JobProgress()
    input: dict[str, Any] = {}
    images: list[JobImage] = []
    items: list[JobItem] = []
    output: dict[str, Any] | None = None
    error: ItemError | None = None
    created_at: str = ""

    _raw: dict[str, Any] = PrivateAttr(default_factory=dict)

    @classmethod
    def parse(cls, raw: Any) -> Self:  # noqa: ANN401 - JSON, whatever it is
        """Raises pydantic's `ValidationError` for what is not a job."""
        job = cls.model_validate(raw)
        job._raw = raw
        return job

    @property
    def raw(self) -> dict[str, Any]:
        return self._raw

    @property
    def ended(self) -> bool:
        return self.status in ENDED


class JobUpdate(BaseModel):
    """The job as it is now."""

    kind: Literal["job"] = "job"
    job: Job


class ImageUpdate(BaseModel):
    """One image as it is now."""

    kind: Literal["image"] = "image"
    image: JobImage


class ImageFraction(Answer):
    """How far one image is, 0 to 1."""

    index: int
    fraction: float


class ProgressUpdate(Answer):
    """How far the images in hand are."""

    kind: Literal["progress"] = "progress"
    waiting_for: WaitingFor | None = None
    images: list[ImageFraction] = []


Update = JobUpdate | ImageUpdate | ProgressUpdate
