"""Weighs every mode of a request on a machine, from configurations alone.

No weight is read, nothing is downloaded, and torch is not needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..config import ModelConfig
from ..config.quantization import GGUF_NEEDS
from ..config.tiling import TILED, UNTILED
from ..resolved import FilledRequest
from ..schema import SIZE_MULTIPLE, TEMPORAL_COMPRESSION, GenerationRequest
from .architecture import Architecture
from .checkpoint import COMPONENTS, read_architecture
from .context_parallel import why_not as cannot_share
from .cost import estimate
from .decoding import Decode, largest_tensor
from .machine import CPU_CORE_FLOPS, Machine
from .memory import CUDA_CONTEXT, FRAGMENTATION, STAGES, Forecast, Setup, Shape, forecast, needed_gpu_bytes
from .modes import DTYPES, Mode, all_modes, why_impossible
from .quantization import Method
from .result import Alternative, ComponentWeights, ModePlan, Plan, fastest, gib

# torch before 2.7 refuses to upsample to more elements, and cuDNN before 9.3 to convolve them.
MAX_ELEMENTS = 2**31 - 1
# Sizes that the model was trained on (width, height) and some below, the largest first; also turned round.
_SIZES = ((1280, 720), (1104, 832), (960, 960), (960, 544), (832, 624), (720, 720), (848, 480), (640, 368), (512, 320))


def plan(
    request: GenerationRequest,
    model: ModelConfig,
    machine: Machine,
    *,
    methods: dict[str, Method] | None = None,
    cards: int = 1,
) -> Plan:
    """Weigh every mode of a request on a machine.

    Args:
        request: fields that it leaves open take the model's defaults.
        model: which checkpoint; its configuration is read where it is on this machine.
        machine: what to plan for; see ``detect_machine``.
        methods: other meanings of ``fp8``, ``int8`` and ``nf4`` than the package's own.
        cards: such cards that make the video together (context parallel); memory is that of one of them
            and of its process.

    Raises:
        ModelLoadError: a configuration of the checkpoint is unreadable or of other classes.
    """
    planner = _Planner(read_architecture(model), model, machine, methods or {}, cards)
    return planner.plan(FilledRequest.of(request, dict(model.defaults)))


def weigh(request: GenerationRequest, model: ModelConfig, machine: Machine, mode: Mode, cards: int = 1) -> ModePlan:
    """One mode of a request, of all those that ``plan`` weighs or of another precision.

    Raises:
        ModelLoadError: as for ``plan``.
    """
    filled = FilledRequest.of(request, dict(model.defaults))
    return _Planner(read_architecture(model), model, machine, {}, cards).weigh(filled, mode)


@dataclass(frozen=True)
class _Planner:
    """What stays the same for all requests to one model on one machine."""

    architecture: Architecture
    model: ModelConfig
    machine: Machine
    methods: dict[str, Method]
    cards: int = 1

    def plan(self, request: FilledRequest) -> Plan:
        """See :func:`plan`."""
        modes = tuple(self.weigh(request, mode) for mode in all_modes())
        plain = self._forecast(request, Mode())
        return Plan(
            request=request,
            model=self.model.name,
            architecture=self.architecture.source,
            render_size=self.model.render_size(request.width, request.height),
            machine=self.machine,
            weights=tuple(self._weights(plain)),
            flops_per_step=plain.costs["denoise"].flops * _passes(request),
            modes=modes,
            assumptions=tuple(self._assumptions(modes)),
            find_alternatives=lambda: self._alternatives(request),
        )

    def _setup(self, mode: Mode) -> Setup:
        device = self.machine.device
        method = self.methods.get(mode.quantization or "", mode.method)
        tiling = TILED if mode.vae_tiling else UNTILED
        return Setup(device, mode.offload, method, tiling, dict(DTYPES[device]), cards=self.cards)

    def _shape(self, request: FilledRequest) -> Shape:
        width, height = self.model.render_size(request.width, request.height)
        return Shape.of(self.architecture, width, height, request.num_frames, self.model.prompt_template.crop_start)

    def _forecast(self, request: FilledRequest, mode: Mode) -> Forecast:
        return forecast(self.architecture, self._shape(request), self._setup(mode))

    def weigh(self, request: FilledRequest, mode: Mode) -> ModePlan:
        """See :func:`weigh`."""
        setup, found = self._setup(mode), self._forecast(request, mode)
        impossible = (
            why_impossible(mode, self.machine, setup.method)
            or cannot_share(self.architecture.transformer.num_attention_heads, self.cards)
            or self._not_with_gguf(mode)
            or self._too_many_elements(request, setup)
        )
        steps = request.num_inference_steps
        seconds = None if impossible else estimate(found, setup, self.machine.reference, steps, _passes(request))
        needed = needed_gpu_bytes(found.gpu_peak_bytes) if self.machine.device == "cuda" else 0
        return ModePlan(
            mode=mode,
            peaks=found.peaks,
            gpu_peak_bytes=found.gpu_peak_bytes,
            host_peak_bytes=found.host_peak_bytes,
            needed_gpu_bytes=needed,
            seconds=seconds,
            reason=impossible or self._too_large(needed, found),
        )

    def _not_with_gguf(self, mode: Mode) -> str | None:
        """Why a transformer from a GGUF file cannot be run like this."""
        if self.model.transformer_gguf is None:
            return None
        if mode.quantization is not None:
            return "the transformer is a GGUF file, which is quantised already"
        return GGUF_NEEDS.why_not(self.machine.device, None, mode.offload, self.machine.libraries)

    def _too_many_elements(self, request: FilledRequest, setup: Setup) -> str | None:
        """Whether a tensor of the decoding is beyond the indices of CUDA kernels."""
        if setup.device == "cpu":
            return None
        elements = largest_tensor(self.architecture.vae, Decode(self._shape(request).latents, 2, setup.tiling))
        if elements <= MAX_ELEMENTS:
            return None
        return f"decode: a tensor of {elements / 1e9:.1f} billion elements, kernels take 2.1; needs VAE tiling"

    def _too_large(self, needed: int, found: Forecast) -> str | None:
        """Which memory does not hold it, if one does not."""
        gpu, host = self.machine.gpu_memory_bytes, self.machine.host_memory_bytes
        if gpu is not None and needed > gpu:
            stage = max(STAGES, key=lambda name: found.peaks[name].gpu_bytes)
            return f"{stage}: needs {gib(needed)} of GPU memory, there are {gib(gpu)}"
        if host is not None and found.host_peak_bytes > host:
            stage = max(STAGES, key=lambda name: found.peaks[name].host_bytes)
            return f"{stage}: needs {gib(found.host_peak_bytes)} of host memory, there are {gib(host)}"
        return None

    def _weights(self, found: Forecast) -> Iterator[ComponentWeights]:
        dtypes = DTYPES[self.machine.device]
        for name in COMPONENTS:
            parameters = getattr(self.architecture, name).parameters
            yield ComponentWeights(name, parameters, dtypes[name], found.stored[name].total)

    def _assumptions(self, modes: tuple[ModePlan, ...]) -> Iterator[str]:
        gpu = self.machine.reference
        if gpu is None:
            yield f"time: {CPU_CORE_FLOPS / 1e9:g} GFLOP/s a core; loading the model comes on top"
        elif any(mode.seconds for mode in modes):
            shares = gpu.utilisation
            known = "" if self.machine.gpu else ", as no GPU is named"
            yield (
                f"time: {gpu.title}{known}: {gpu.bf16_tflops:g} TFLOP/s dense bfloat16, of which attention reaches "
                f"{shares.flash:.0%}, matrix products {shares.matmul:.0%}, convolutions {shares.convolution:.0%} "
                f"({shares.source}); loading the model comes on top"
            )
        if self.machine.device == "cuda":
            yield (
                f"GPU memory: {gib(CUDA_CONTEXT)} for the CUDA context and {FRAGMENTATION:.0%} for fragmentation on "
                "top of the peaks shown"
            )
        if self.model.transformer_gguf is not None:
            yield "the GGUF file's transformer is planned in bfloat16, which is more than it takes"
        if self.machine.host_memory_bytes is None:
            yield "host memory: not given, so not checked"

    def _alternatives(self, request: FilledRequest) -> list[Alternative]:
        """The longest video of this size that fits, and the largest of this length."""
        shorter = self._longest(request)
        smaller = next((found for size in _smaller_sizes(request) if (found := self._fitting(request, **size))), None)
        return [found for found in (shorter, smaller) if found is not None]

    def _longest(self, request: FilledRequest) -> Alternative | None:
        """By halving: a shorter video never needs more."""
        low, high = 0, (request.num_frames - 1) // TEMPORAL_COMPRESSION
        best = None
        while low < high:
            middle = (low + high) // 2
            found = self._fitting(request, num_frames=middle * TEMPORAL_COMPRESSION + 1)
            best, low, high = (found, middle + 1, high) if found else (best, low, middle)
        return best

    def _fitting(self, request: FilledRequest, **changes: int) -> Alternative | None:
        changed = request.replace(**changes)
        found = fastest(tuple(self.weigh(changed, mode) for mode in all_modes()))
        return None if found is None else Alternative(changed.width, changed.height, changed.num_frames, found.name)


def _smaller_sizes(request: FilledRequest) -> Iterator[dict[str, int]]:
    """Sizes below the request's and of its orientation, the largest first; at last ever smaller ones of its shape."""
    width, height = request.width, request.height
    for long, short in _SIZES:
        size = (long, short) if width >= height else (short, long)
        if size[0] * size[1] < width * height:
            yield {"width": size[0], "height": size[1]}
    for part in (0.5, 0.25, 0.125):
        sides = [max(SIZE_MULTIPLE, round(side * part / SIZE_MULTIPLE) * SIZE_MULTIPLE) for side in (width, height)]
        if sides[0] * sides[1] < _SIZES[-1][0] * _SIZES[-1][1]:
            yield {"width": sides[0], "height": sides[1]}


def _passes(request: FilledRequest) -> int:
    """Forward passes a step: true guidance makes two, if there is a negative prompt."""
    return 2 if request.negative_prompt is not None and request.true_cfg_scale > 1 else 1
