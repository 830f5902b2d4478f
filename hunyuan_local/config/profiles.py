"""What a runtime profile says: where a model runs, in which precision, and how fast against how exact."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .strict import StrictConfig

Dtype = Literal["float32", "bfloat16", "float16"]
Offload = Literal["none", "model", "sequential"]


class ComponentDtypes(StrictConfig):
    """Precision a component; the transformer is never float16, which gives black videos."""

    transformer: Literal["float32", "bfloat16"]
    vae: Dtype
    text_encoder: Dtype
    text_encoder_2: Dtype


class _StepCache(StrictConfig):
    """Which steps of a run may be skipped: from the share ``start`` of all steps up to the share ``end``."""

    start: float = Field(default=0.2, ge=0, le=1)
    end: float = Field(default=1.0, ge=0, le=1)

    @model_validator(mode="after")
    def _leaves_steps(self) -> _StepCache:
        if self.start >= self.end:
            raise ValueError(f"start={self.start} must be below end={self.end}; leave both out, or use cache: null")
        return self


class FirstBlockCache(_StepCache):
    """Skip a step where the first block's residual differs by less than ``threshold`` from the last full step's."""

    kind: Literal["first-block"]
    threshold: float = Field(default=0.05, gt=0, lt=1)


class TaylorSeerCache(_StepCache):
    """Make one step of every ``interval`` in full; a Taylor series of this ``order`` gives the others' output."""

    kind: Literal["taylorseer"]
    interval: int = Field(default=3, ge=2)
    order: int = Field(default=1, ge=0, le=3)


class MagCache(_StepCache):
    """Skip while the error that ``mag_ratios`` foretell adds up to less than ``threshold``, ``max_skips`` at most.

    ``mag_ratios`` are one number a step, measured on the checkpoint: how the blocks' residual grows.
    """

    kind: Literal["magcache"]
    threshold: float = Field(default=0.06, gt=0, lt=1)
    max_skips: int = Field(default=3, ge=1)
    mag_ratios: tuple[Annotated[float, Field(gt=0)], ...] = ()

    @model_validator(mode="after")
    def _is_calibrated(self) -> MagCache:
        if len(self.mag_ratios) < 2:
            raise ValueError(
                "mag_ratios: magcache needs the ratios of this very checkpoint, one a step; measure them with "
                "benchmarks/step_caches.py --calibrate, or use kind: first-block, which needs none"
            )
        return self


CacheConfig = Annotated[FirstBlockCache | TaylorSeerCache | MagCache, Field(discriminator="kind")]


class RuntimeProfile(StrictConfig):
    """How a model runs on a kind of machine.

    Attributes:
        name: what ``--profile`` calls it.
        device: ``cpu`` or ``cuda``.
        dtypes: precision a component.
        offload: ``none`` keeps all components on the device; ``model`` moves one component there at
            a time; ``sequential`` moves one layer at a time: least memory, slowest.
        vae_tiling: decode in spatial tiles, which needs less memory.
        attention_backend: the kernel of the transformer's attention; ``auto`` is the fastest exact one
            that works on the device.
        compile: compile the transformer's blocks: minutes at the first step, then faster steps.
        cache: skip steps that change little: faster, not exact.
        min_gpu_memory_gib: GPU memory in GiB that the profile is meant for.
    """

    name: str
    device: Literal["cpu", "cuda"]
    dtypes: ComponentDtypes
    offload: Offload = "none"
    vae_tiling: bool = False
    attention_backend: str = "auto"
    compile: bool = False
    cache: CacheConfig | None = None
    min_gpu_memory_gib: Annotated[float, Field(ge=0)] = 0

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
