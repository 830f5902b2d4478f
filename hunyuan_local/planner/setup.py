"""What a forecast is about: the shape of a video, and how a program runs the pipeline."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..config.allocator import AS_SET, Allocator
from ..config.tiling import UNTILED, Tiling
from .architecture import Architecture
from .denoising import Mask
from .encoding import LLAMA_TOKENS
from .modes import DTYPES, Offload
from .quantization import FULL, Method

Stage = Literal["load", "encode", "denoise", "decode"]
STAGES: tuple[Stage, ...] = ("load", "encode", "denoise", "decode")


@dataclass(frozen=True)
class Shape:
    """A video as the model sees it: latents (frames, height, width), and the prompt template's number of tokens."""

    latents: tuple[int, int, int]
    template_tokens: int

    @classmethod
    def of(cls, architecture: Architecture, width: int, height: int, num_frames: int, template_tokens: int) -> Shape:
        """The shape of a video with this size in pixels and number of frames."""
        vae = architecture.vae
        frames = (num_frames - 1) // vae.temporal_compression_ratio + 1
        ratio = vae.spatial_compression_ratio
        return cls((frames, height // ratio, width // ratio), template_tokens)


@dataclass(frozen=True)
class Setup:
    """How a program runs the pipeline.

    Attributes:
        device: ``cuda`` or ``cpu``.
        offload: see :class:`hunyuan_local.planner.modes.Mode`.
        method: how the transformer's weights are stored.
        tiling: the tiles of the decoding.
        dtypes: dtype of each component.
        mask: how attention handles the text's padding.
        text_tokens: text tokens that the transformer sees.
        streams_frames: whether decoded frames leave the device piece by piece.
        loads_by_part: True: components are read one at a time, those that stay on the GPU directly to it, and the text
            encoders are there only while they encode. False: everything is read to the host first.
        cards: number of cards that split each forward pass of the transformer (context parallel), each with all the
            weights. Memory is that of one card, and main memory that of its process.
        text_stays: whether, without offload, the text encoders stay on the GPU between prompts.
        allocator: how torch allocates.
        streamed_blocks: the most blocks that are on the GPU at a time under group offload: this package queues two and
            has the next one fetched, diffusers alone has the running one and the next.
    """

    device: Literal["cuda", "cpu"] = "cuda"
    offload: Offload = "none"
    method: Method = FULL
    tiling: Tiling = UNTILED
    dtypes: dict[str, str] = field(default_factory=lambda: dict(DTYPES["cuda"]))
    mask: Mask = "none"
    text_tokens: int = LLAMA_TOKENS
    streams_frames: bool = True
    loads_by_part: bool = True
    cards: int = 1
    text_stays: bool = False
    allocator: Allocator = AS_SET
    streamed_blocks: int = 3
