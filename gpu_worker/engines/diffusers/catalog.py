"""The catalog: the models that a node may serve, by alias, and how. An allow-list, written by operators."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from contract.messages import ALIAS, JsonScalar, LoraCard, ModelCard, Task
from gpu_worker.engines.diffusers.family_facts import FAMILY_FACTS, FamilyFacts

ENGINE_NAME = "diffusers"
MAX_LORAS = 4  # at once, per image
MANY_PIXELS = 2048 * 2048

HUB_ID = r"[A-Za-z0-9][\w.-]*/[\w.-]+"
COMMIT = r"^[0-9a-f]{40}$"

Alias = Annotated[str, Field(pattern=ALIAS)]
Dtype = Literal["auto", "bfloat16", "float16", "float32"]
SafetyMode = Literal["off", "flag", "blur", "refuse"]


class Table(BaseModel):
    """Base of all tables: what is not declared is refused, what is read is never changed."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def is_local(source: str) -> bool:
    """Whether it is a path, and not the id of a repository of the hub."""
    return source.startswith(("/", "./", "../", "~/"))


class Fetched(Table):
    """What is a folder of this machine, or a repository of the hub at one commit.

    Once served (`serving.served`), `revision` is always set: for the hub the commit on disk, for a folder
    a digest of what is in it. In the catalog it may be empty: then the first download decides, and the lock
    file keeps it.
    """

    source: str = Field(pattern=rf"^(?:{HUB_ID}|/.*|\.{{1,2}}/.*|~/.*)$")
    revision: str | None = Field(default=None, pattern=COMMIT)  # 40 hex digits; never a branch or a tag

    @property
    def local(self) -> bool:
        """Whether the source is a path."""
        return is_local(self.source)


class LoraEntry(Fetched):
    """A LoRA that a model may be asked to work with."""

    file: str | None = None  # in the source; None: the source is the file itself
    family: str | None = None  # None: that of its model
    default_weight: float = Field(default=1.0, ge=-4, le=4)
    description: str = ""
    license: str | None = None
    trigger_words: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _is_one_file(self) -> Self:
        if self.file is None and not (self.local and self.source.endswith(".safetensors")):
            raise ValueError("file: which .safetensors file of the source it is")
        return self

    @field_validator("file")
    @classmethod
    def _within_the_source(cls, file: str | None) -> str | None:
        if file and (not file.endswith(".safetensors") or file.startswith("/") or ".." in file.split("/")):
            raise ValueError("a .safetensors file, as a path within the source")
        return file


class Safety(Table):
    """What is done about images that a classifier holds for unsafe."""

    mode: SafetyMode = "off"  # flag: tell; blur: tell and blur; refuse: content_refused
    source: str | None = Field(default=None, pattern=rf"^(?:{HUB_ID}|/.*|\.{{1,2}}/.*|~/.*)$")
    revision: str | None = Field(default=None, pattern=COMMIT)
    unsafe_labels: tuple[str, ...] = ("nsfw",)  # of the classifier
    threshold: float = Field(default=0.5, gt=0, lt=1)  # on the sum of their probabilities

    @model_validator(mode="after")
    def _needs_a_classifier(self) -> Self:
        if self.mode != "off" and not (self.source and self.unsafe_labels):
            raise ValueError("source and unsafe_labels: what judges the images, and which words mean unsafe")
        return self

    def checker(self) -> Fetched | None:
        """Where the classifier is; None: there is none to be loaded."""
        return (
            Fetched(source=self.source, revision=self.revision)
            if self.mode != "off" and self.source
            else None
        )


class Defaults(Table):
    """What a request gets that doesn't say otherwise."""

    width: int = Field(default=1024, gt=0)  # pixels
    height: int = Field(default=1024, gt=0)  # pixels
    steps: int = Field(default=30, ge=1)
    guidance: float = Field(default=5.0, ge=0, le=30)
    scheduler: str | None = None  # None: the one that comes with the model
    strength: float = Field(default=0.6, gt=0, le=1)


class Limits(Table):
    """What a request may ask for, and how much is made at once."""

    min_size: int = Field(default=256, ge=16)  # pixels, each side
    max_size: int = Field(default=2048, le=8192)  # pixels, each side
    max_pixels: int = Field(default=MANY_PIXELS, gt=0)  # width x height
    max_steps: int = Field(default=100, ge=1, le=1000)
    batch: int | Literal["auto"] = "auto"  # images at once at the most

    @field_validator("batch")
    @classmethod
    def _at_least_one(cls, batch: int | str) -> int | str:
        if isinstance(batch, int) and not 1 <= batch <= 256:
            raise ValueError('between 1 and 256, or "auto"')
        return batch


class ModelEntry(Fetched):
    """One model. `alias` is what requests say; a source is never theirs to choose."""

    alias: Alias
    family: str  # of FAMILY_FACTS
    variant: str | None = Field(default=None, pattern=r"^[a-z0-9_]{1,16}$")  # fp16: of the files
    description: str = ""
    license: str = Field(min_length=1)  # a note for those who use its images
    tasks: tuple[Task, ...] = ()  # none: all that its family can
    defaults: Defaults = Defaults()
    limits: Limits = Limits()
    schedulers: tuple[str, ...] = ()  # that a request may name; none: all that its family can
    scheduler_options: Mapping[str, JsonScalar] = {}  # over the model's own scheduler configuration
    negative_prompt: bool | None = None  # whether it takes one; None: where its guidance is above 1
    loras: Mapping[Alias, LoraEntry] = {}
    loras_always: tuple[Alias, ...] = ()  # of `loras`: at work in every image, and not to be chosen
    dtype: Dtype = "auto"  # bfloat16 where the device has it
    compile: bool = False  # by block, with a warm-up
    attention: str | None = Field(default=None, pattern=r"^[a-z0-9_]+$")  # a backend's name in diffusers
    fp8: bool = False  # weights of the denoiser: half the memory, a little less true
    offload: Literal["never", "auto"] = "auto"  # to the machine's memory, where the device's is too small
    strict_batch: int = Field(default=1, ge=1, le=64)  # `reproducible` images are made this many at once
    safety: Safety = Safety()

    @field_validator("family")
    @classmethod
    def _known(cls, family: str) -> str:
        if family not in FAMILY_FACTS:
            raise ValueError(f"unknown (there are: {', '.join(FAMILY_FACTS)})")
        return family

    @property
    def facts(self) -> FamilyFacts:
        """What is known of its family."""
        return FAMILY_FACTS[self.family]

    @property
    def can(self) -> tuple[Task, ...]:
        """The tasks that it may be asked for."""
        return self.tasks or tuple(self.facts.pipelines)

    @property
    def scheduler_names(self) -> tuple[str, ...]:
        """The schedulers that it may be asked for."""
        return self.schedulers or self.facts.schedulers

    @property
    def loras_to_choose(self) -> dict[str, LoraEntry]:
        """The LoRAs that a request may name."""
        return {name: lora for name, lora in self.loras.items() if name not in self.loras_always}

    @property
    def takes_negative_prompt(self) -> bool:
        """Whether a negative prompt does anything."""
        asked = self.defaults.guidance > 1 if self.negative_prompt is None else self.negative_prompt
        return asked and self.facts.can_negative_prompt


class Catalog(Table):
    """All models that a node may serve."""

    models: Mapping[Alias, ModelEntry]


def card_of(entry: ModelEntry) -> ModelCard:
    """What is announced of a model."""
    return ModelCard(
        name=entry.alias,
        engine=ENGINE_NAME,
        description=entry.description,
        family=entry.family,
        revision=entry.revision,
        license=entry.license,
        tasks=entry.can,
        min_size=entry.limits.min_size,
        max_size=entry.limits.max_size,
        size_multiple=entry.facts.size_multiple,
        max_pixels=entry.limits.max_pixels,
        max_steps=entry.limits.max_steps,
        default_width=entry.defaults.width,
        default_height=entry.defaults.height,
        default_steps=entry.defaults.steps,
        default_guidance=entry.defaults.guidance,
        default_strength=entry.defaults.strength if set(entry.can) - {"text-to-image"} else None,
        schedulers=entry.scheduler_names,
        default_scheduler=entry.defaults.scheduler,
        loras=tuple(_lora_card(name, lora) for name, lora in entry.loras_to_choose.items()),
        max_loras=min(MAX_LORAS, len(entry.loras_to_choose)),
        can_negative_prompt=entry.takes_negative_prompt,
        can_preview=entry.safety.mode in ("off", "flag"),
        can_reproduce=True,
    )


def _lora_card(name: str, lora: LoraEntry) -> LoraCard:
    words = ", ".join(lora.trigger_words)
    told = [lora.description, f"Trigger words: {words}." if words else ""]
    return LoraCard(
        name=name,
        description=" ".join(part for part in told if part),
        default_weight=lora.default_weight,
        license=lora.license,
    )
