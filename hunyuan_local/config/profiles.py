"""What a runtime profile says: where a model runs, in which precision, and how fast against how exact."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .strict import StrictConfig

Dtype = Literal["float32", "bfloat16", "float16"]
Offload = Literal["none", "model", "group", "sequential"]
Residence = Literal["device", "visit", "group", "sequential", "cpu"]
# The first of each kind of number is what the planner weighs; the others are for who asks for them.
Quantization = Literal["fp8", "fp8-weights", "fp8-dynamic", "int8", "int8-dynamic", "nf4", "llm-int8"]


class ComponentDtypes(StrictConfig):
    """Precision a component; the transformer is never float16, which gives black videos."""

    transformer: Literal["float32", "bfloat16"]
    vae: Dtype
    text_encoder: Dtype
    text_encoder_2: Dtype


class ComponentPlacement(StrictConfig):
    """Where the components beside the transformer are; None is what the profile's ``offload`` means for them.

    ``device`` keeps a component on the device, ``visit`` takes it there for its own stage alone, ``group``
    and ``sequential`` stream it there in pieces, ``cpu`` runs it on the CPU.
    """

    text_encoder: Residence | None = None
    text_encoder_2: Residence | None = None
    vae: Residence | None = None


class GroupOffload(StrictConfig):
    """How ``offload: group`` streams a component.

    Attributes:
        level: ``block`` moves one transformer block at a time, ``leaf`` one layer at a time: less
            memory, more waiting.
        stream: fetch the next piece while one runs; CUDA only, without effect elsewhere.
        pinned: keep the weights in page-locked host memory: faster, but a copy of them all; false pins each
            piece when it is wanted.
        to_disk: keep the weights in files rather than in host memory: for machines with little RAM, slow.
    """

    level: Literal["block", "leaf"] = "block"
    stream: bool = True
    pinned: bool = True
    to_disk: bool = False


class OutOfMemoryConfig(StrictConfig):
    """What is tried when the device's memory runs out, from the last finished step on.

    Attributes:
        attempts: how many times in all a video is begun or gone on with; 1 gives up at once.
        quantization: precisions that the transformer may be lowered to when no offload is left; not
            exact, so none unless asked for.
    """

    attempts: int = Field(default=5, ge=1)
    quantization: tuple[Quantization, ...] = ()


class ContextParallel(StrictConfig):
    """One video made by several processes of this machine together, each with a GPU of its own.

    Attributes:
        degree: how many.
        mode: how they share the attention: ``ulysses`` each some of the heads, ``ring`` each some of the tokens.
    """

    degree: int = Field(ge=2)
    mode: Literal["ulysses", "ring"] = "ulysses"


class _StepCache(StrictConfig):
    """Which steps of a run may be skipped: those that begin from the share ``start`` of all on, and before ``end``."""

    start: float = Field(default=0.2, ge=0, le=1)
    end: float = Field(default=1.0, ge=0, le=1)

    @model_validator(mode="after")
    def _leaves_steps(self) -> _StepCache:
        if self.start >= self.end:
            raise ValueError(f"start={self.start} must be below end={self.end}; leave both out, or use cache: null")
        return self


class FirstBlockCache(_StepCache):
    """Skip a step where the first block's residual differs by less than ``threshold`` from the last full step's.

    How much a first block tells of the others depends on the model: ``thresholds`` are of models by name, in the
    place of ``threshold``.
    """

    kind: Literal["first-block"]
    threshold: float = Field(default=0.05, gt=0, lt=1)
    thresholds: dict[str, Annotated[float, Field(gt=0, lt=1)]] = Field(default_factory=dict)


class TaylorSeerCache(_StepCache):
    """Make one step of every ``interval`` in full; a Taylor series of this ``order`` gives the others' output."""

    kind: Literal["taylorseer"]
    interval: int = Field(default=3, ge=2)
    order: int = Field(default=1, ge=0, le=3)


class MagCache(_StepCache):
    """Skip while the error that ``mag_ratios`` foretell adds up to less than ``threshold``, ``max_skips`` at most.

    ``mag_ratios`` are one number a step, measured on the checkpoint: how the blocks' residual grows. They are
    converted to the number of steps of a run. Left out, they are the model's own.
    """

    kind: Literal["magcache"]
    threshold: float = Field(default=0.06, gt=0, lt=1)
    max_skips: int = Field(default=3, ge=1)
    mag_ratios: tuple[Annotated[float, Field(gt=0)], ...] = ()


CacheConfig = Annotated[FirstBlockCache | TaylorSeerCache | MagCache, Field(discriminator="kind")]


class RuntimeProfile(StrictConfig):
    """How a model runs on a kind of machine.

    Attributes:
        name: what ``--profile`` calls it.
        device: ``cpu`` or ``cuda``.
        dtypes: precision a component.
        offload: ``none`` keeps the transformer and the autoencoder on the device, and the text encoders
            while they encode; ``model`` moves one component there at a time; ``group`` streams the
            transformer and the Llama encoder block by block; ``sequential`` moves one layer at a
            time: least memory, slowest.
        group: how ``group`` streams.
        placement: where single components are, if not where ``offload`` has them.
        quantization: how the transformer's weights are stored; None is ``dtypes.transformer``.
        vae_tiling: decode in spatial tiles, as large as the free memory allows.
        attention_backend: the kernel of the transformer's attention; ``auto`` is the fastest exact one
            that works on the device.
        compile: compile the transformer's blocks: minutes at the first step, then faster steps.
        cache: skip steps that change little: faster, not exact.
        prompt_cache: keep encoded prompts on disk, so that one that was seen before needs no text encoder.
        on_oom: what is tried when the device's memory runs out.
        context_parallel: several processes share the tokens of one video; None is one process.
    """

    name: str
    device: Literal["cpu", "cuda"]
    dtypes: ComponentDtypes
    offload: Offload = "none"
    group: GroupOffload = GroupOffload()
    placement: ComponentPlacement = ComponentPlacement()
    quantization: Quantization | None = None
    vae_tiling: bool = False
    attention_backend: str = "auto"
    compile: bool = False
    cache: CacheConfig | None = None
    prompt_cache: bool = True
    on_oom: OutOfMemoryConfig = OutOfMemoryConfig()
    context_parallel: ContextParallel | None = None

    def residence(self, component: str) -> Residence:
        """Where a component is kept, from ``offload`` and ``placement``."""
        own: Residence | None = None if component == "transformer" else getattr(self.placement, component)
        if own is not None:
            return own
        if self.offload == "none":
            return "visit" if component.startswith("text_encoder") else "device"
        if self.offload == "model":
            return "visit"
        if self.offload == "group":
            # CLIP and the autoencoder are small, 0.75 of the 13 B checkpoint's 41 GB: sooner moved than streamed.
            return "group" if component in ("transformer", "text_encoder") else "visit"
        return "sequential"

    @property
    def exact_frames(self) -> dict[str, object]:
        """What the frames depend on: runs of profiles that agree in it can go on with each other's states.

        ``context_parallel`` is among it, as sums are made in another order, but only where it is used.
        """
        decisive = {"device", "dtypes", "quantization", "attention_backend", "compile", "cache"}
        if self.context_parallel is not None:
            decisive.add("context_parallel")
        return self.model_dump(include=decisive)

    @model_validator(mode="after")
    def _can_compile(self) -> RuntimeProfile:
        if self.compile and self.offload == "sequential":
            raise ValueError(
                "compile=True does not go with offload='sequential', which moves single layers; "
                "use offload: none or model, or compile: false"
            )
        if self.compile and isinstance(self.cache, MagCache):
            raise ValueError(
                "compile=True does not go with cache.kind='magcache', which runs the blocks uncompiled; "
                "use kind: first-block or taylorseer, or compile: false"
            )
        return self
