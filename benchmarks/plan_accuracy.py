"""Compares the planner with published numbers: memory row by row, then times.

    python benchmarks/plan_accuracy.py

The planner's single memory model predicts each row from the row's settings; it is not fitted to any row. Settings that
the source does not state are assumptions, printed below the table. Only one number does not follow from a config: how
many columns of a layer's input have outliers for LLM.int8 (``LlmInt8.outliers``). It comes from the row marked with a
star and is used for all 8-bit rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hunyuan_local.config import GIB, load_model_config
from hunyuan_local.config.allocator import Allocator
from hunyuan_local.planner.cards import find_gpu
from hunyuan_local.planner.checkpoint import read_architecture
from hunyuan_local.planner.decoding import TILED, UNTILED, Tiling
from hunyuan_local.planner.denoising import Mask
from hunyuan_local.planner.memory import Forecast, forecast
from hunyuan_local.planner.modes import Offload
from hunyuan_local.planner.quantization import FULL, LLM_INT8, NF4, Method
from hunyuan_local.planner.setup import Setup, Shape
from hunyuan_local.planner.time_estimate import Kernel, estimate

BFLOAT16 = dict.fromkeys(("transformer", "vae", "text_encoder", "text_encoder_2"), "bfloat16")
TOLERANCE = 0.10


@dataclass(frozen=True)
class Row:
    """A published memory peak of a program that runs diffusers' pipeline.

    Attributes:
        name: the setting, as the source names it.
        gib: the published peak; None if the source only reports that the card was too small.
        size: (width, height, frames).
        setup: how that program runs the pipeline.
        source: the source.
    """

    name: str
    gib: float | None
    size: tuple[int, int, int]
    setup: Setup
    source: str

    def predicted(self) -> Forecast:
        """The planner's prediction."""
        return predict(self.size, self.setup)

    @property
    def error(self) -> float:
        """Relative error of the prediction."""
        return self.predicted().gpu_peak_bytes / GIB / self.gib - 1


def predict(size: tuple[int, int, int], setup: Setup) -> Forecast:
    """The planner's forecast for the 13 B model."""
    architecture = read_architecture(load_model_config("hunyuan-video"))
    return forecast(architecture, Shape.of(architecture, *size, template_tokens=95), setup)


def _library(
    offload: Offload, method: Method = FULL, tiling: Tiling = UNTILED, mask: Mask = "row", text_tokens: int = 256
) -> Setup:
    """Unmodified diffusers: everything in bfloat16, decoded frames kept, padding with a mask."""
    return Setup(
        "cuda", offload, method, tiling, BFLOAT16, mask=mask, text_tokens=text_tokens, streams_frames=False,
        loads_by_part=False,
    )  # fmt: skip


def _blog(name: str, gib: float, offload: Offload, method: Method = FULL, tiling: Tiling = UNTILED) -> Row:
    return Row(name, gib, (768, 512, 121), _library(offload, method, tiling, text_tokens=128), "blog")


def _fastvideo(name: str, gib: float, method: Method) -> Row:
    # Its script leaves every proj_out and norm_out in bfloat16.
    method = method if method is FULL else replace(method, skip=("proj_out", "norm_out"))
    return Row(name, gib, (1280, 720, 45), _library("model", method, TILED, mask="square"), "FastVideo")


ROWS = (
    _blog("bf16, all resident", 60.10, "none"),
    _blog("+ VAE tiling", 43.58, "none", tiling=TILED),
    _blog("+ model offload", 28.87, "model", tiling=TILED),
    _blog("8-bit", 49.90, "none", LLM_INT8),
    _blog("8-bit + model offload *", 35.66, "model", LLM_INT8),
    _blog("8-bit + tiling", 36.92, "none", LLM_INT8, TILED),
    _blog("8-bit + model offload + tiling", 26.18, "model", LLM_INT8, TILED),
    _blog("4-bit", 42.96, "none", NF4),
    _blog("4-bit + model offload", 21.99, "model", NF4),
    _blog("4-bit + tiling", 26.42, "none", NF4, TILED),
    _blog("4-bit + model offload + tiling", 14.15, "model", NF4, TILED),
    Row("4-bit + model offload + tiling", 14.0, (1280, 720, 61), _library("model", NF4, TILED), "docs"),
    _fastvideo("bf16 + model offload + tiling", 33.744, FULL),
    _fastvideo("8-bit + model offload + tiling", 27.979, LLM_INT8),
    _fastvideo("4-bit + model offload + tiling", 19.260, NF4),
)
# Reports without a number that a card was too small: (report, size, the card's GiB, (assumption, setup)...).
TOO_SMALL = (
    (
        "512x320 x 61 without offload, 48 GB (xinference #2721)",
        (512, 320, 61),
        47.4,
        (("", _library("none")),),
    ),
    (
        "1280x720 x 129 on an A800 of 80 GB (HunyuanVideo #215)",
        (1280, 720, 129),
        79.15,
        (
            ("diffusers 0.32.1", _library("none", FULL, TILED, "square")),
            ("0.32.2", _library("none", FULL, TILED, "row")),
        ),
    ),
)
OFFICIAL = (("1280x720 x 129", 60, (1280, 720, 129)), ("960x544 x 129", 45, (960, 544, 129)))
NOTES = """\
blog: huggingface.co/blog/video_gen, A100 80 GB; its numbers are consistent with GiB. 512x768x121, at most 128 text
  tokens, bfloat16 throughout, bitsandbytes 0.45. Rows without tiling decode whole frames, 17 at a time (diffusers'
  temporal tiles). "+ model offload" is the larger of denoising and decoding: denoising with and without tiling.
  8-bit modules stay on the GPU, and from the first step on keep 280 outlier columns per layer in 16 bits (*).
docs: "requires ~14GB of VRAM", diffusers documentation, HunyuanVideo, an example of 61 frames; its unit is unclear.
FastVideo: its README, H100; torch.cuda.max_memory_allocated in GiB, sample_t2v_diffusers_hunyuan.py, 720x1280x45,
  diffusers 0.32.1, whose mask is [1, N, N] and is inverted and cast in every attention.
A800: the report does not state the version of diffusers; it is consistent only with 0.32.1.
All rows count tensors; a card also needs memory for the CUDA context and fragmentation."""


@dataclass(frozen=True)
class Latency:
    """A published time for ``part`` of a video on one GPU."""

    name: str
    seconds: float
    size: tuple[int, int, int]
    steps: int
    gpu: str
    setup: Setup
    kernel: Kernel
    part: str = "total"

    def predicted(self) -> float:
        """The planner's estimate."""
        spec = find_gpu(self.gpu)
        return getattr(
            estimate(predict(self.size, self.setup), self.setup, spec, self.steps, 1, self.kernel), self.part
        )


_FREE = _library("none", FULL, TILED, "none")
_MASKED = _library("none", FULL, TILED, "square")  # the time of the denoising loop alone
LATENCIES = (
    Latency("official code, H100, 50 steps (FlashAttention 2)", 1904, (1280, 720, 129), 50, "h100", _FREE, "flash2"),
    Latency("sliding tile attention's baseline, H100, 50 steps", 945, (1280, 768, 117), 50, "h100", _FREE, "flash"),
    Latency("ParaAttention's baseline, L20, 30 steps +", 3676, (1280, 720, 129), 30, "l20", _FREE, "flash"),
    Latency("FastVideo bf16, H100, 6 steps +", 81, (1280, 720, 45), 6, "h100", _MASKED, "flash2", "denoise"),
)


@dataclass(frozen=True)
class Shared:
    """A published time for one video on several GPUs.

    Attributes:
        name, seconds: from the source.
        row: the same program on one GPU.
        cards: number of GPUs that share each step.
        steps_share: fraction of the steps' time that remains with a step cache.
        shares_decoding: whether the program also splits the decoding.
    """

    name: str
    seconds: float
    row: Latency
    cards: int
    steps_share: float = 1.0
    shares_decoding: bool = False

    def predicted(self) -> float:
        """The planner's estimate."""
        row = self.row
        setup = replace(row.setup, cards=self.cards)
        found = estimate(predict(row.size, setup), setup, find_gpu(row.gpu), row.steps, 1, row.kernel)
        decode = found.decode / (self.cards if self.shares_decoding else 1)
        return found.encode + found.denoise * self.steps_share + decode


def _cached_share() -> float:
    """Fraction of the steps' time that remains with first-block cache, from published times on one GPU."""
    row = LATENCIES[2]
    found = estimate(predict(row.size, row.setup), row.setup, find_gpu(row.gpu), row.steps, 1, row.kernel)
    other_stages = found.encode + found.decode
    return (2271 - other_stages) / (row.seconds - other_stages)


SHARED = (
    Shared("official code + xDiT, 1 H100", 1904, LATENCIES[0], 1),
    Shared("official code + xDiT, 2 H100", 934, LATENCIES[0], 2),
    Shared("official code + xDiT, 4 H100", 514, LATENCIES[0], 4),
    Shared("official code + xDiT, 8 H100", 338, LATENCIES[0], 8),
    Shared("ParaAttention + first-block cache, 1 L20", 2271, LATENCIES[2], 1, _cached_share(), True),
    Shared("ParaAttention + first-block cache, 2 L20", 1133, LATENCIES[2], 2, _cached_share(), True),
    Shared("ParaAttention + first-block cache, 4 L20", 718, LATENCIES[2], 4, _cached_share(), True),
    Shared("ParaAttention + first-block cache, 8 L20", 649, LATENCIES[2], 8, _cached_share(), True),
)
SHARED_NOTES = """\
Context parallel, Ulysses: 1280x720 x 129, 50 steps on H100 (HunyuanVideo's README), 30 on L20 (ParaAttention's
documentation). Two numbers in planner/time_estimate.py come from these rows: PARALLEL_LOSS from the H100 rows, and
SLOTS_SHARE, the combined exchange rate of GPUs without NVLink, from the L20 rows. The effect of first-block cache is
taken from 2271 of 3676 s on one GPU, so its first row agrees by construction; ParaAttention also splits the decoding.
On two GPUs both programs became at least twice as fast, which splitting alone does not explain."""
LATENCY_NOTES = """\
Times are operations at an assumed share of the GPU's peak, defined in configs/gpus.yaml: for Hopper from the
FlashAttention-3 paper and gpu_check on an H100, for Ada and for attention with a mask of all pairs from the rows
marked +, which therefore nearly agree by construction. Rows without a mask are predicted with this pipeline's chunked
blocks, which read and write less than those of the programs. The first row's program differs from this pipeline in
other ways too; the second used FlashAttention 3, which is a tenth faster than the assumed kernel. Other sizes such as
960x544 and 512x768 follow from the same shares."""


def main() -> None:
    print(f"{'peak GPU memory':34}{'source':>10}{'published':>11}{'predicted':>11}{'error':>8}")
    for row in ROWS:
        found = row.predicted().gpu_peak_bytes / GIB
        mark = "" if abs(row.error) <= TOLERANCE else "  outside 10 %"
        print(f"{row.name:34}{row.source:>10}{row.gib:11.2f}{found:11.2f}{row.error:+8.1%}{mark}")
    print("\nreports of a card that was too small")
    for name, size, card, cases in TOO_SMALL:
        for assumed, setup in cases:
            default = replace(setup, allocator=Allocator(expandable=False))
            needed = predict(size, default).needed_gpu_bytes / GIB
            print(f"{name:56}{assumed:17} needs {needed:6.1f} of {card:.1f}")
    print("\nthe official code, a different program, and this pipeline's prediction, all resident, with tiling")
    for name, gib, size in OFFICIAL:
        print(f"{name:44}{gib:11.2f}{predict(size, replace(_FREE, streams_frames=True)).gpu_peak_bytes / GIB:11.2f}")
    print(f"\n{NOTES}\n\n{'seconds':55}{'published':>11}{'predicted':>11}{'error':>8}")
    for row in LATENCIES:
        found = row.predicted()
        print(f"{row.name:55}{row.seconds:11.0f}{found:11.0f}{found / row.seconds - 1:+8.1%}")
    heading = f"{'seconds on several GPUs':45}{'published':>11}{'predicted':>11}{'ratio':>8}{'speed-up':>16}"
    print(f"\n{LATENCY_NOTES}\n\n{heading}")
    for row in SHARED:
        found = row.predicted()
        one = next(other for other in SHARED if other.row is row.row)
        faster = f"{one.seconds / row.seconds:.2f} / {one.predicted() / found:.2f}"
        print(f"{row.name:45}{row.seconds:11.0f}{found:11.0f}{found / row.seconds:8.2f}{faster:>16}")
    print(f"\n{SHARED_NOTES}")


if __name__ == "__main__":
    main()
