"""Compares every mode of a request on a machine, from configurations alone.

Reads no weights, and needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..config import ModelConfig
from ..config.quantization import GGUF_NEEDS
from ..config.tiling import TILED, UNTILED
from ..resolved import FilledRequest
from ..schema import SIZE_MULTIPLE, TEMPORAL_COMPRESSION, GenerationRequest
from .architecture import Architecture
from .assumptions import notes_of, of_video
from .checkpoint import COMPONENTS, read_architecture
from .compiling import Compiling, can_compile, saved_bytes, weigh_compiling
from .context_parallel import why_not as cannot_share
from .decoding import Decode, largest_tensor
from .machine import Machine
from .memory import Forecast, forecast
from .modes import DTYPES, Mode, all_modes, why_impossible
from .quantization import Method
from .result import Alternative, ComponentWeights, ModePlan, Plan, fastest, gib
from .setup import STAGES, Setup, Shape
from .time_estimate import estimate_range

# torch before 2.7 cannot upsample to more elements, and cuDNN before 9.3 cannot convolve more.
MAX_ELEMENTS = 2**31 - 1
# Sizes (width, height) that the model was trained on, and some smaller ones, largest first; also used in portrait.
_SIZES = ((1280, 720), (1104, 832), (960, 960), (960, 544), (832, 624), (720, 720), (848, 480), (640, 368), (512, 320))


def plan(
    request: GenerationRequest,
    model: ModelConfig,
    machine: Machine,
    *,
    methods: dict[str, Method] | None = None,
    cards: int = 1,
    videos: int = 1,
    as_named: bool = False,
) -> Plan:
    """Compare every mode of a request on a machine.

    Args:
        request: missing fields get the model's defaults.
        model: which checkpoint; its configuration is read if it is on this machine.
        machine: what to plan for; see ``detect_machine``.
        methods: alternatives to the package's methods for ``fp8``, ``int8`` and ``nf4``.
        cards: number of such cards that split the video (context parallel); memory is that of one card and its process.
        videos: number of videos of this size that a process generates, by which compiling is weighed.
        as_named: plan each mode as a profile of its name runs it: the text encoders leave the GPU, nothing is compiled.

    Raises:
        ModelLoadError: a configuration of the checkpoint is unreadable or describes other classes.
    """
    planner = _Planner(read_architecture(model), model, machine, methods or {}, cards, videos, as_named)
    return planner.plan(model.fill(request))


def weigh(
    request: GenerationRequest,
    model: ModelConfig,
    machine: Machine,
    mode: Mode,
    cards: int = 1,
    *,
    as_named: bool = False,
) -> ModePlan:
    """Estimate one mode of a request; it need not be one of ``all_modes``.

    Args:
        as_named: as for ``plan``.

    Raises:
        ModelLoadError: as for ``plan``.
    """
    filled = model.fill(request)
    return _Planner(read_architecture(model), model, machine, {}, cards, as_named=as_named).weigh(filled, mode)


@dataclass(frozen=True)
class _Planner:
    """Holds what is the same for all requests to one model on one machine."""

    architecture: Architecture
    model: ModelConfig
    machine: Machine
    methods: dict[str, Method]
    cards: int = 1
    videos: int = 1
    as_named: bool = False

    def plan(self, request: FilledRequest) -> Plan:
        """Weigh all modes and collect the plan."""
        modes = tuple(self.weigh(request, mode) for mode in all_modes())
        plain = self._forecast(request, self._setup(Mode()))
        return Plan(
            request=request,
            model=self.model.name,
            architecture=self.architecture.source,
            render_size=self.model.render_size(request.width, request.height),
            machine=self.machine,
            weights=tuple(self._weights(plain)),
            flops_per_step=plain.costs["denoise"].flops * _passes(request),
            modes=modes,
            assumptions=tuple(of_video(self.machine, self.model, modes)),
            find_alternatives=lambda: self._alternatives(request),
            notes=tuple(notes_of(self.machine, modes, fastest(modes))),
        )

    def _setup(self, mode: Mode) -> Setup:
        device = self.machine.device
        method = self.methods.get(mode.quantization or "", mode.method)
        tiling = TILED if mode.vae_tiling else UNTILED
        dtypes, allocator = dict(DTYPES[device]), self.machine.allocator
        return Setup(
            device, mode.offload, method, tiling, dtypes, text_tokens=self.architecture.text_tokens, cards=self.cards,
            allocator=allocator,
        )  # fmt: skip

    def _shape(self, request: FilledRequest) -> Shape:
        width, height = self.model.render_size(request.width, request.height)
        return Shape.of(self.architecture, width, height, request.num_frames, self.model.prompt_template.crop_start)

    def _forecast(self, request: FilledRequest, setup: Setup) -> Forecast:
        return forecast(self.architecture, self._shape(request), setup)

    def weigh(self, request: FilledRequest, mode: Mode) -> ModePlan:
        """Estimate one mode, and say why it does not fit."""
        setup = self._setup(mode)
        found = self._forecast(request, setup)
        impossible = (
            why_impossible(mode, self.machine, setup.method)
            or cannot_share(self.architecture.transformer.num_attention_heads, self.cards)
            or self._not_with_gguf(mode)
            or self._too_many_elements(request, setup)
        )
        if not impossible and (roomy := self._with_text(request, setup)) is not None:
            setup, found = roomy
        on_gpu = self.machine.device == "cuda"
        needed = found.needed_gpu_bytes if on_gpu else 0
        seconds = seconds_range = compiling = None
        if not impossible:
            compiling = self._weigh_compiling(request, mode, setup, found)
            saved_a_step = compiling.saved_a_step if compiling is not None and compiling.pays else None
            seconds, seconds_range = estimate_range(
                found, setup, self.machine, request.num_inference_steps, _passes(request), saved_a_step
            )
        if compiling is not None and compiling.pays:
            found = self._forecast(request, replace(setup, mask="row"))
            needed = found.needed_gpu_bytes
        return ModePlan(
            mode=mode,
            peaks=found.peaks,
            gpu_peak_bytes=found.gpu_peak_bytes,
            host_peak_bytes=found.host_peak_bytes,
            needed_gpu_bytes=needed,
            seconds=seconds,
            reason=impossible or self._too_large(needed, found),
            needed_gpu_range=found.needed_gpu_range if on_gpu else (0, 0),
            seconds_range=seconds_range,
            text_stays=setup.text_stays,
            compiling=compiling,
        )

    def _with_text(self, request: FilledRequest, setup: Setup) -> tuple[Setup, Forecast] | None:
        """Without offload, the text encoders on the GPU between prompts, if they fit at the upper end of the range."""
        memory = self.machine.gpu_memory_bytes
        if setup.offload != "none" or memory is None or self.as_named:
            return None
        staying = replace(setup, text_stays=True)
        found = self._forecast(request, staying)
        return (staying, found) if found.needed_gpu_range[1] <= memory else None

    def _weigh_compiling(self, request: FilledRequest, mode: Mode, setup: Setup, found: Forecast) -> Compiling | None:
        """What compiling would save in this mode; None if the plan does not consider it."""
        fixed = self.as_named or self.model.transformer_gguf is not None or self.model.lora
        if fixed or not can_compile(mode, self.cards):
            return None
        steps, passes = request.num_inference_steps, _passes(request)
        saved = saved_bytes(found, self.architecture.transformer)
        weighed = weigh_compiling(saved, self.machine, steps, passes, self.videos)
        if weighed is None or not weighed.pays:
            return weighed
        # Compiled blocks are diffusers' own, whose eager peak is the most that they take; they do not run in chunks.
        memory, heavier = self.machine.gpu_memory_bytes, self._forecast(request, replace(setup, mask="row"))
        if memory is None or heavier.needed_gpu_range[1] <= memory:
            return weighed
        return replace(weighed, why_not=f"compiled, it may need {gib(heavier.needed_gpu_range[1])} of GPU memory")

    def _not_with_gguf(self, mode: Mode) -> str | None:
        """Why a transformer from a GGUF file cannot run in this mode."""
        if self.model.transformer_gguf is None:
            return None
        if mode.quantization is not None:
            return "the transformer is a GGUF file, which is already quantized"
        return GGUF_NEEDS.why_not(self.machine.device, None, mode.offload, self.machine.libraries)

    def _too_many_elements(self, request: FilledRequest, setup: Setup) -> str | None:
        """Why the decoding does not work: a tensor is too large for the 32-bit indices of CUDA kernels."""
        if setup.device == "cpu":
            return None
        elements = largest_tensor(self.architecture.vae, Decode(self._shape(request).latents, 2, setup.tiling))
        if elements <= MAX_ELEMENTS:
            return None
        return f"decode: a tensor has {elements / 1e9:.1f} billion elements; kernels support 2.1; needs VAE tiling"

    def _too_large(self, needed: int, found: Forecast) -> str | None:
        """Which memory is too small, if any."""
        gpu, host = self.machine.gpu_memory_bytes, self.machine.host_memory_bytes
        if gpu is not None and needed > gpu:
            stage = max(STAGES, key=lambda name: found.peaks[name].reserved_bytes)
            return f"{stage}: needs {gib(needed)} of GPU memory; the card has {gib(gpu)}"
        if host is not None and found.host_peak_bytes > host:
            stage = max(STAGES, key=lambda name: found.peaks[name].host_bytes)
            return f"{stage}: needs {gib(found.host_peak_bytes)} of host memory; the machine has {gib(host)}"
        return None

    def _weights(self, found: Forecast) -> Iterator[ComponentWeights]:
        dtypes = DTYPES[self.machine.device]
        for name in COMPONENTS:
            parameters = getattr(self.architecture, name).parameters
            yield ComponentWeights(name, parameters, dtypes[name], found.stored[name].total)

    def _alternatives(self, request: FilledRequest) -> list[Alternative]:
        """The longest video of this size that fits, and the largest of this length."""
        shorter = self._longest(request)
        smaller = next((found for size in _smaller_sizes(request) if (found := self._fitting(request, **size))), None)
        return [found for found in (shorter, smaller) if found is not None]

    def _longest(self, request: FilledRequest) -> Alternative | None:
        """Binary search; a shorter video never needs more memory."""
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
    """Smaller sizes with the request's orientation, largest first; then scaled-down versions of the request's size."""
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
    """Forward passes per step: two with true CFG and a negative prompt, else one."""
    return 2 if request.negative_prompt is not None and request.true_cfg_scale > 1 else 1
