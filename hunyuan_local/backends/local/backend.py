"""Makes videos on this machine: loads the model once, then request by request to an mp4.

The order of the work is here; the work itself is in ``pipeline/``, ``gate`` and ``video``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ...capabilities import Capabilities, fit
from ...config import LoraConfig, ModelConfig, RuntimeProfile, load_cache, load_model_config
from ...errors import ConfigError, GpuMemoryError, InvalidOutputError
from ...planner import Machine, plan
from ...planner.tiles import Tiles
from ...resolved import ResolvedRequest
from ...schema import GenerationRequest, GenerationResult, Progress
from ...weights.added_files import check_added_files
from ..base import Explanation, GenerationContext, explanation, with_seed
from ..begin import OneAtATime, Run, begin
from ..prompt_rewriting import FindPlace, PromptRewriter
from .decode_and_write import PendingVideo, decode_to_file, fitting_tiles, make_previewer
from .out_of_memory import OutOfMemoryFallback, Retry, remedy, why_impossible
from .profile_choice import (
    Choice,
    available_machine,
    choose_profile,
    for_the_largest,
    named_profile,
    place_beside,
    with_cache,
)

if TYPE_CHECKING:
    from ...pipeline.model import LoadedModel


class LocalBackend:
    """The pipeline of diffusers on a local GPU or CPU.

    Args:
        model: a name from ``configs/models``, a folder in diffusers' layout, a Hub id, or a whole
            config. None is ``hunyuan-video`` where there is a CUDA device, else ``tiny``.
        profile: a name from ``configs/profiles``, a YAML file, a mode of the plan such as ``group+tiling``, or a
            whole profile. None or ``auto``: the fastest mode that the plan says fits, for each request.
        revision: branch, tag or commit of a Hub repository; None is what the model's config says.
        lora: added to those of the model's config.
        cache: a name from ``configs/caches``, in the place of the profile's own.

    Raises:
        ConfigError: unknown model, profile or cache, or a revision of a folder.
    """

    name = "local"
    is_paid, keeps_state = False, True

    def __init__(
        self,
        model: str | ModelConfig | None = None,
        profile: str | RuntimeProfile | None = None,
        revision: str | None = None,
        lora: Sequence[LoraConfig] = (),
        cache: str | None = None,
    ):
        if model is None:
            from ...pipeline.memory.device import default_model

            model = default_model()
        self.config = model if isinstance(model, ModelConfig) else load_model_config(model)
        if revision is not None:
            self.config = self.config.with_revision(revision)
        self.config = self.config.model_copy(update={"lora": (*self.config.lora, *lora)})
        self.cache = None if cache is None else load_cache(cache)
        self.profile = profile if isinstance(profile, RuntimeProfile) else named_profile(profile)
        if self.profile is not None:
            self.profile = with_cache(self.profile, self.cache, self.config)
        self.loaded: LoadedModel | None = None
        self._loaded_for: RuntimeProfile | None = None
        self._encoded: Path | None = None
        self._tiles: dict[tuple[int, int, int], Tiles] = {}
        self._prompt_rewriter = PromptRewriter()
        self._one_at_a_time = OneAtATime()

    @property
    def capabilities(self) -> Capabilities:
        """See :class:`hunyuan_local.backends.base.Backend`: all that a request allows."""
        return Capabilities(defaults=dict(self.config.defaults))

    @property
    def identity(self) -> str:
        """See :class:`hunyuan_local.backends.base.Backend`."""
        return self.config.identity

    @property
    def device(self) -> str:
        """What the model runs on, once it is loaded."""
        if self.loaded is None:  # nor is torch, perhaps, and a worker reports before it is
            return "not loaded"
        from ...pipeline.memory.device import device_name

        return device_name(self.loaded.profile)

    def memory(self) -> tuple[int, int] | None:
        """The most bytes of the device that were taken so far, and all it has; None where it does not count."""
        if self.loaded is None:
            return None
        from ...pipeline.memory.device import device_memory

        return device_memory(self.loaded.profile)

    def explain(self, request: GenerationRequest) -> Explanation:
        """See :class:`hunyuan_local.backends.base.Backend`; the body is the request, complete."""
        fitted = fit(request, self.name, self.capabilities)
        from ...weights.source import known_configs

        known_configs(self.config)  # a request to a model that nobody knows is not taken
        resolved = self.resolve(fitted.request)
        body = resolved.model_dump()
        return explanation(self.name, fitted, self.capabilities, url=None, body=body, notes=self.notes(resolved))

    def resolve(self, request: GenerationRequest) -> ResolvedRequest:
        """The request with the model's defaults and a random seed where nothing was given."""
        return ResolvedRequest.of(with_seed(request, self.capabilities), self.capabilities.defaults)

    def load(self, context: GenerationContext | None = None) -> LoadedModel:
        """Load the model for requests of its usual size, or return the loaded one.

        Raises:
            HunyuanLocalError: it cannot be loaded, or this backend is at work on a video.
        """
        context = context or GenerationContext()
        with self._one_at_a_time:
            self.check_model()
            choice = self.choose(self.resolve(GenerationRequest(prompt="any")), self._loaded_for)
            choice.announce(context.on_note)
            return self.load_in(choice.profile, context)

    def encode_ahead(self, requests: Sequence[GenerationRequest], folder: Path, context: GenerationContext) -> None:
        """Encode the prompts of requests to come into a folder, all at once; then the text encoders leave.

        From now on the transformer stays on the device between videos, where there is room for it. Stops,
        without an error, when the context is cancelled. See :meth:`.text.prompt_encoder.PromptEncoder.encode_ahead`.

        Raises:
            ConfigError: the folder cannot be written.
            HunyuanLocalError: the model cannot be loaded, the device does not hold the text encoders, or this backend
                is at work on a video.
        """
        with self._one_at_a_time:
            self._encode_ahead(requests, folder, context)

    def _encode_ahead(self, requests: Sequence[GenerationRequest], folder: Path, context: GenerationContext) -> None:
        from ...pipeline.memory.device import translated_shortage

        self.check_model()
        machine = available_machine() if self.profile is None else None
        choice = for_the_largest(
            map(self.resolve, requests), lambda request: self.choose(request, self._loaded_for, machine)
        )
        if choice is None:  # each of them is refused when its turn comes
            return
        choice.announce(context.on_note)
        model = self.load_in(choice.profile, context)
        try:
            with translated_shortage("encode"):
                model.prompts.encode_ahead(
                    folder, requests, context.on_progress, context.on_note, context.cancel.is_set
                )
        except OSError as error:
            raise ConfigError(f"{folder}: encoded prompts cannot be kept: {error}; check the disk") from error
        self._encoded = folder

    def rewrite(self, request: GenerationRequest, context: GenerationContext | None = None) -> GenerationRequest:
        """See :class:`hunyuan_local.backends.base.Backend`; the language model never shares the GPU with the denoising
        unless the plan says that both fit."""
        resolved = self.resolve(request)
        return self._prompt_rewriter.rewrite(
            request,
            context or GenerationContext(),
            lambda needed_bytes: self._place(resolved, self.choose(resolved, self._loaded_for))(needed_bytes),
        )

    def generate(self, request: GenerationRequest, context: GenerationContext | None = None) -> GenerationResult:
        """Make one video; see :class:`hunyuan_local.backends.base.Backend` and :meth:`start`."""
        return self.start(request, context).result()

    def start(self, request: GenerationRequest, context: GenerationContext | None = None) -> PendingVideo:
        """As :meth:`generate`, but return when the last frame is decoded: the next video need not wait for the file.

        Where the device's memory runs out, it is tried again in smaller pieces, from the last finished
        step on; what was changed is in the result, and stays so for the requests to come.

        Raises:
            HunyuanLocalError: at once where this backend is at work on another video; else see
                :class:`hunyuan_local.backends.base.Backend`.
        """
        context = context or GenerationContext()
        with self._one_at_a_time:
            # 1. Everything that can be refused is refused before any of the model's weights is read.
            if self.loaded is None:
                check_added_files(self.config)
            run = begin(request, context, name=self.config.name, resolve=self.resolve, model=self.config)
            self.check_model()
            choice = self.choose(run.request, self._loaded_for)
            run.rewrite(self._prompt_rewriter, self._place(run.request, choice))
            for text in self.notes(run.request):
                run.note(text)
            choice.announce(run.note)
            return self._make(run, choice.profile)

    def _make(self, run: Run[ResolvedRequest], profile: RuntimeProfile) -> PendingVideo:
        """The video, in this profile or in what follows it when memory runs out."""
        request = run.request
        fallback: OutOfMemoryFallback | None = None
        size = (*self.config.render_size(request.width, request.height), request.num_frames)
        tiles = self._tiles.setdefault(size, Tiles(self.config, request))
        while True:
            try:
                pending = self._attempt(run, profile, tiles)
                break
            except GpuMemoryError as error:
                if self._prompt_rewriter.leave_gpu():
                    continue
                if error.stage == "decode" and self.loaded is not None and self.loaded.placement.has_evictable:
                    self.loaded.placement.evict()
                    continue
                fallback = fallback or OutOfMemoryFallback(profile, partial(why_impossible, self.config))
                retry = self._next_retry(fallback, error, tiles, request)
                profile = retry.profile
            # Not inside the block above: the error's frames keep the model alive.
            text = f"{retry.text}: {tiles.shrink()}" if retry.shrink_tiles else retry.text
            run.recoveries.append(text)
            run.note(text)
            if not retry.shrink_tiles:
                self._unload()
        if self.profile is not None:
            self.profile = profile
        return pending

    def _attempt(self, run: Run[ResolvedRequest], profile: RuntimeProfile, tiles: Tiles) -> PendingVideo:
        """The way from the model to the file, or what is left of it."""
        from ...pipeline.checkpoint import Checkpoint
        from ...pipeline.denoise import denoise
        from ...pipeline.model import facts_of

        # 2. The model.
        request, context = run.request, run.context
        model = self.load_in(profile, context)
        run.loaded = run.loaded or time.monotonic()

        run.state = checkpoint = run.state or Checkpoint()
        checkpoint.facts = facts_of(model, request)
        previewer = make_previewer(run, model) if context.preview_every else None
        try:
            # 3. Noise to latents.
            denoised = denoise(
                model, request, self.config.render_size(request.width, request.height), context.on_progress, run.note,
                context.cancel.is_set, checkpoint, previewer,
            )  # fmt: skip

            # 4. Latents to a file; until it is there, the saved latents stay.
            return decode_to_file(run, model, denoised, fitting_tiles(model, tiles, profile), checkpoint.delete)
        except InvalidOutputError:
            checkpoint.delete()  # the same latents would give the same video
            raise
        except BaseException as error:  # cancelled, or a full disk: while this process lives, no finished step is lost
            checkpoint.rescue(request.seed, error, run.note)
            raise

    def close(self) -> None:
        """Let go of the models and of the device memory they held."""
        self._prompt_rewriter.close()
        if self.loaded is not None:
            self._unload()

    def load_in(self, profile: RuntimeProfile, context: GenerationContext) -> LoadedModel:
        """The model in this profile, loaded now unless it is there."""
        from ...pipeline.loading.loader import load_model

        # Tiles are chosen for each decoding, so they are no reason to load a model again.
        untiled = profile.model_copy(update={"vae_tiling": False})
        if self.loaded is None or self._loaded_for != untiled:
            self._unload()
            context.on_progress(Progress(stage="load"))
            self.loaded = load_model(self.config, profile, context.on_progress, context.on_note)
            self._loaded_for = untiled
            if self._encoded is not None:
                self.loaded.prompts.use(self._encoded)
        self.loaded.profile = self.loaded.profile.model_copy(update={"vae_tiling": profile.vae_tiling})
        return self.loaded

    def _unload(self) -> None:
        if self.loaded is not None:
            self.loaded.placement.close()
        self.loaded = self._loaded_for = None
        from ...pipeline.memory.device import free_device

        free_device()

    def check_model(self) -> None:
        """Settle that the model is here or can be fetched, before anything is planned for it.

        Raises:
            ConfigError, ModelLoadError: see :func:`hunyuan_local.weights.source.check_known`.
        """
        from ...weights.source import check_known  # the Hub's client takes a while to import

        if self.loaded is None:
            check_known(self.config)

    def choose(self, request: ResolvedRequest, loaded: RuntimeProfile | None, machine: Machine | None = None) -> Choice:
        """The profile that was named, or the plan's choice for this request.

        Args:
            loaded: what the model runs in now; None where it is not loaded.
            machine: what to plan for; None is this machine as it is now.

        Raises:
            GpuMemoryError, ConfigError: see :func:`.profile_choice.choose_profile`.
        """
        if self.profile is not None:
            return Choice(self.profile)
        choice = choose_profile(request, self.config, loaded, machine)
        return replace(choice, profile=with_cache(choice.profile, self.cache, self.config))

    def _place(self, request: ResolvedRequest, choice: Choice) -> FindPlace:
        """Says where a language model goes that rewrites the prompt of this request."""
        return lambda needed_bytes: place_beside(
            request, self.config, choice, needed_bytes, is_empty=self.loaded is None
        )

    def _next_retry(
        self, fallback: OutOfMemoryFallback, error: GpuMemoryError, tiles: Tiles, request: ResolvedRequest
    ) -> Retry:
        """What to try next.

        Raises:
            GpuMemoryError: nothing is left; with the remedy.
        """
        try:
            return fallback.next_retry(error, tiles.can_shrink)
        except GpuMemoryError as last:
            self._unload()
            found = plan(request, self.config, available_machine())
            raise GpuMemoryError(f"{last}; {remedy(found)}", error.stage, error.peak_bytes) from None

    def notes(self, request: ResolvedRequest) -> list[str]:
        """What the user should know of the model, and of a size at which it does not render."""
        from ...weights.licence import notices_of

        notes = notices_of(self.config)
        width, height = self.config.render_size(request.width, request.height)
        if (width, height) != (request.width, request.height):
            factor = min(request.width / width, request.height / height)
            notes.append(
                f"{self.config.name} renders at {width}x{height}; the encoder scales up about "
                f"{factor:.1f} times to {request.width}x{request.height}"
            )
        return notes
