"""Peak memory of each stage: the weights in memory, plus the activations of the stage.

``gpu = weights on the GPU + activations + cuBLAS workspace``, in bytes as counted by
``torch.cuda.max_memory_allocated``; the card needs what torch reserves for that (``fragmentation.py``) and
``CUDA_CONTEXT``. One model covers every mode, and other programs that run this pipeline through diffusers; a ``Setup``
describes how they differ.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..config import GIB
from .architecture import Architecture, Transformer
from .decoding import Decode, trace_decode
from .denoising import Pass, trace_parts, trace_pass
from .encoded_lengths import LLAMA_TOKENS
from .encoding import trace_clip, trace_image, trace_llama
from .fragmentation import reserved
from .quantization import DTYPE_BYTES, LayerwiseCasting
from .setup import STAGES, Setup, Shape, Stage
from .trace import Cost
from .weights import Stored, store

# cuBLAS's workspace, which torch allocates once per device: 8 MiB, on Hopper 32 MiB.
BLAS_WORKSPACE = 32 * 2**20
# GPU memory of a CUDA process before its first tensor: context and kernels. FastVideo publishes 20 GB for a run whose
# tensors peak at 19.26 GiB.
CUDA_CONTEXT = round(0.5 * GIB)
# Main memory of a process with the libraries loaded: measured with the built-in model on a CPU; assumed for CUDA.
PROCESS_BYTES = {"cpu": round(0.6 * GIB), "cuda": 2 * GIB}


@dataclass(frozen=True)
class Peak:
    """Bytes at the peak of a stage.

    Attributes:
        gpu_bytes: of tensors on the GPU.
        host_bytes: of main memory.
        reserved_bytes: what torch reserves on the GPU for these tensors.
        reserved_range: the lowest and highest that it may reserve.
    """

    gpu_bytes: int
    host_bytes: int
    reserved_bytes: int = 0
    reserved_range: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Forecast:
    """A video's peak memory and cost by stage, and the stored weights by component.

    Attributes:
        tokens: of the video and its text in one forward pass.
    """

    peaks: dict[Stage, Peak]
    costs: dict[Stage, Cost]
    stored: dict[str, Stored]
    tokens: int

    @property
    def gpu_peak_bytes(self) -> int:
        """Peak of torch's allocations on the GPU, over all stages."""
        return max(peak.gpu_bytes for peak in self.peaks.values())

    @property
    def host_peak_bytes(self) -> int:
        """Peak of main memory, over all stages."""
        return max(peak.host_bytes for peak in self.peaks.values())

    @property
    def needed_gpu_bytes(self) -> int:
        """Total memory a card needs: the most that torch reserves in a stage, and the CUDA context.

        What a stage leaves reserved is given back before the next, so the stages do not add up.
        """
        return CUDA_CONTEXT + max(peak.reserved_bytes for peak in self.peaks.values())

    @property
    def needed_gpu_range(self) -> tuple[int, int]:
        """The lowest and highest total memory that a card may need."""
        ends = zip(*(peak.reserved_range for peak in self.peaks.values()), strict=True)
        lowest, highest = (CUDA_CONTEXT + max(end) for end in ends)
        return lowest, highest


def forecast(architecture: Architecture, shape: Shape, setup: Setup) -> Forecast:
    """Peaks and costs of all stages; the cost of ``denoise`` is for one forward pass."""
    dtypes = setup.dtypes
    stored = {
        "transformer": store(architecture.transformer, dtypes["transformer"], setup.method),
        "vae": store(architecture.vae, dtypes["vae"]),
        "text_encoder": store(architecture.text_encoder, dtypes["text_encoder"]),
        "text_encoder_2": store(architecture.text_encoder_2, dtypes["text_encoder_2"]),
    }
    run = _pass_of(architecture.transformer, shape, setup)
    costs: dict[Stage, Cost] = {
        "encode": _encode(architecture, shape, setup),
        "denoise": trace_pass(architecture.transformer, run),
        "decode": _decode(architecture, shape, setup),
    }
    parts = trace_parts(architecture.transformer, run)
    held = _held(architecture, shape, setup)
    weights = _on_gpu(stored, setup)
    in_full = store(architecture.transformer, dtypes["transformer"]).total
    peaks: dict[Stage, Peak] = {}
    for stage in STAGES:
        activations = costs[stage].peak_bytes + held.get(stage, 0) if stage in costs else 0
        host = PROCESS_BYTES[setup.device] + _on_host(stored, setup, stage, in_full)
        if setup.device == "cpu":
            peaks[stage] = Peak(0, host + activations)
        else:
            workspace = BLAS_WORKSPACE if stage in costs else 0
            gpu = weights[stage] + activations + workspace
            if setup.offload == "sequential" and stage in ("encode", "denoise"):
                # The largest layer runs while few activations are alive, and their peak is between two layers.
                gpu = max(weights[stage], activations) + workspace
            elif setup.offload == "group" and stage == "denoise":
                streamed = _streamed_peak(architecture.transformer, parts, setup, stored["transformer"])
                gpu = streamed + held[stage] + workspace
            resting = min(gpu, _resting(stored, setup, stage, weights[stage]))
            usual, *ends = reserved(stage, gpu, resting, setup.allocator.expandable)
            host += _frames_on_host(shape, setup, stage)
            peaks[stage] = Peak(gpu, host, usual, (ends[0], ends[1]))
    return Forecast(peaks, costs, stored, run.tokens)


def _pass_of(config: Transformer, shape: Shape, setup: Setup) -> Pass:
    """One forward pass of the transformer on a video."""
    frames, height, width = shape.latents
    tokens = (frames // config.patch_size_t) * (height // config.patch_size) * (width // config.patch_size)
    each = DTYPE_BYTES[setup.dtypes["transformer"]]
    return Pass(tokens, setup.text_tokens, each, setup.mask, setup.method, setup.cards)


def _encode(architecture: Architecture, shape: Shape, setup: Setup) -> Cost:
    tokens = (setup.text_tokens if architecture.transformer.image is None else LLAMA_TOKENS) + shape.template_tokens
    if architecture.image_tokens:
        tokens += architecture.image_tokens - 1  # they replace one token of the template
    cost = trace_llama(architecture.llama, tokens, DTYPE_BYTES[setup.dtypes["text_encoder"]])
    cost = cost.then(trace_clip(architecture.text_encoder_2, DTYPE_BYTES[setup.dtypes["text_encoder_2"]]))
    if architecture.transformer.image is None:
        return cost
    return cost.then(trace_image(architecture.vae, *shape.latents[1:], DTYPE_BYTES[setup.dtypes["vae"]]))


def _streamed_peak(config: Transformer, parts: dict[str, Cost], setup: Setup, stored: Stored) -> int:
    """Peak bytes of a pass with streamed blocks: the maximum, over the kinds of blocks, of weights + activations."""
    dual, total = config.num_layers, config.num_layers + config.num_single_layers
    at_once = setup.streamed_blocks
    return max(
        stored.streamed_beside(0, 1, at_once) + parts["ends"].peak_bytes,
        stored.streamed_beside(0, dual, at_once) + parts["dual"].peak_bytes,
        stored.streamed_beside(dual, total, at_once) + parts["single"].peak_bytes,
    )


def _decode(architecture: Architecture, shape: Shape, setup: Setup) -> Cost:
    run = Decode(shape.latents, DTYPE_BYTES[setup.dtypes["vae"]], setup.tiling, setup.streams_frames)
    return trace_decode(architecture.vae, run)


def _held(architecture: Architecture, shape: Shape, setup: Setup) -> dict[Stage, int]:
    """Bytes that the pipeline itself holds while a model runs.

    The latents are float32 between steps: ``channels * frames * height * width * 4``. The caller keeps the text
    embeddings in the encoder's dtype; the copy in the transformer's dtype is part of the transformer's trace.
    """
    frames, height, width = shape.latents
    latents = architecture.vae.latent_channels * frames * height * width * 4
    embeddings = setup.text_tokens * architecture.transformer.text_embed_dim * DTYPE_BYTES[setup.dtypes["text_encoder"]]
    return {"denoise": latents + embeddings, "decode": embeddings}


def _on_gpu(stored: dict[str, Stored], setup: Setup) -> dict[Stage, int]:
    """Bytes of weights on the GPU in each stage."""
    transformer, vae = stored["transformer"], stored["vae"]
    llama, clip = stored["text_encoder"], stored["text_encoder_2"]
    grown = transformer.grown
    # A transformer that is quantized on the GPU is there as a whole before offload moves it away.
    loading = transformer.total if setup.method.quantized_on_gpu else 0
    if setup.offload == "none":
        stays = transformer.total + vae.total
        all_text = setup.text_stays or not setup.loads_by_part
        text = llama.total + clip.total if all_text else max(llama.total, clip.total)
        after = stays + text + grown if all_text else stays + grown
        peaks = (stays + transformer.quantizing, stays + text, after, after)
    elif setup.offload == "model":
        # A component is moved in as a whole after the one before is moved out; what cannot be moved stays.
        stuck = 0 if setup.method.movable else transformer.total
        active = transformer.total + grown
        after = 0 if setup.method.movable else active
        peaks = (loading, stuck + max(llama.total, clip.total), active, after + vae.total)
    elif setup.offload == "group":
        at_once = setup.streamed_blocks
        encode = max(llama.streamed_peak(at_once), clip.total)
        peaks = (loading, encode, transformer.streamed_peak(at_once), vae.total + transformer.scales)
    else:
        # accelerate's AlignDevicesHook moves one layer's tensors to the GPU for its forward.
        peaks = (0, max(llama.largest, clip.largest), transformer.largest, vae.largest)
    return dict(zip(STAGES, peaks, strict=True))


def _resting(stored: dict[str, Stored], setup: Setup, stage: Stage, weights: int) -> int:
    """Bytes of weights that stay on the GPU during the whole stage, so that they leave no gaps."""
    if setup.offload == "group":
        transformer = stored["transformer"]
        return {"denoise": transformer.rest + transformer.scales, "decode": stored["vae"].total}.get(stage, 0)
    if setup.offload == "sequential":
        return 0
    return weights - (stored["transformer"].quantizing if stage == "load" and setup.offload == "none" else 0)


def _on_host(stored: dict[str, Stored], setup: Setup, stage: Stage, transformer_in_full: int) -> int:
    """Bytes of weights in main memory during a stage."""
    kept = {name: part.total for name, part in stored.items()}
    if setup.method.quantized_on_gpu and (setup.offload == "none" or not setup.method.movable):
        kept["transformer"] = 0
    everything = sum(kept.values())
    if stage == "load":
        return _while_loading(stored, setup, kept, transformer_in_full)
    if setup.device == "cpu" or setup.offload == "sequential":
        return everything
    if setup.offload == "group":
        pinned = _pinned(stored["text_encoder"], setup) + _pinned(stored["transformer"], setup)
        return pinned + kept["vae"] + kept["text_encoder_2"]
    text = kept["text_encoder"] + kept["text_encoder_2"]
    if setup.offload == "none":
        return text if setup.loads_by_part and not setup.text_stays else 0
    return everything  # what visits the GPU stays in main memory, so that it need not be copied back


def _while_loading(stored: dict[str, Stored], setup: Setup, kept: dict[str, int], transformer_in_full: int) -> int:
    """Peak bytes of weights in main memory while loading, including the text encoders.

    When loading by part, weights that stay on the GPU pass through the host in shards, which are not counted; a
    transformer that is cast to float8 after reading is there in full precision. Otherwise the whole pipeline is read in
    full precision before it is quantized and placed.
    """
    cast = isinstance(setup.method, LayerwiseCasting)
    others = sum(size for name, size in kept.items() if name != "transformer")
    if setup.offload == "group":
        return _pinned_while_placed(stored, setup, transformer_in_full if cast else 0)
    if not setup.loads_by_part:
        return others + (kept["transformer"] if setup.method.quantized_on_gpu else transformer_in_full)
    if setup.offload == "none" and setup.device != "cpu":
        text = 0 if setup.text_stays else kept["text_encoder"] + kept["text_encoder_2"]
        return max(text, transformer_in_full if cast else 0)
    # The transformer is loaded before the text encoders.
    return max(sum(kept.values()), kept["vae"] + transformer_in_full if cast else 0)


def _pinned(part: Stored, setup: Setup) -> int:
    """Bytes of main memory for a page-locked copy of a component's weights."""
    return part.pinned if setup.allocator.exact_pinned else part.pinned_rounded


def _pinned_while_placed(stored: dict[str, Stored], setup: Setup, transformer_in_full: int) -> int:
    """Peak bytes of setting up group offload: weights and their page-locked copies at the same time.

    All copies of a component are made before its original tensors are freed (``ModuleGroup.__init__`` runs before
    ``initialize_hook``). The transformer comes first, the text encoder with the first prompt.
    """
    llama, transformer = stored["text_encoder"], stored["transformer"]
    pinned = _pinned(transformer, setup)
    first = max(transformer_in_full, transformer.total + pinned)
    return stored["vae"].total + max(first, pinned + llama.total + _pinned(llama, setup))


def _frames_on_host(shape: Shape, setup: Setup, stage: Stage) -> int:
    """Bytes of decoded frames in main memory: one piece in uint8 and its copy for the encoder, or all in float32."""
    if stage != "decode":
        return 0
    frames, height, width = shape.latents
    pixels = 3 * height * width * 64
    if setup.streams_frames:
        return 2 * pixels * min(4 * (frames - 1) + 1, setup.tiling.frames + 1)
    return pixels * (4 * (frames - 1) + 1) * (4 + 1)
