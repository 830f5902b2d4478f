"""Generates videos on this machine: loads the model once, then turns each request into an mp4.

This module only orders the steps; they are implemented in ``pipeline/``, ``frame_checks`` and ``video``.
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
from ...planner.added_files import check_added_files
from ...planner.tiles import Tiles
from ...resolved import ResolvedRequest
from ...schema import GenerationRequest, GenerationResult, Progress
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
    """Runs HunyuanVideo with diffusers on a local GPU or CPU.

    Args:
        model: a name from ``configs/models``, a folder in the diffusers layout, a Hub id, or a ``ModelConfig``.
            None selects ``hunyuan-video`` if there is a CUDA device, otherwise ``tiny``.
        profile: a name from ``configs/profiles``, a YAML file, a mode of the plan such as ``group+tiling``, or a
            ``RuntimeProfile``. None or ``auto`` selects, for each request, the fastest mode that fits by the plan.
        revision: branch, tag or commit of a Hub repository; None uses the revision in the model's config.
        lora: LoRAs to load in addition to those in the model's config.
        cache: a name from ``configs/caches``; replaces the cache of the profile.

    Raises:
        ConfigError: unknown model, profile or cache, or a revision given for a local folder.
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
        """No limits beyond those of a request, and the defaults of the model."""
        return Capabilities(defaults=dict(self.config.defaults))

    @property
    def identity(self) -> str:
        """Identity of the model."""
        return self.config.identity

    @property
    def device(self) -> str:
        """Name of the device; ``not loaded`` until the model is loaded."""
        if self.loaded is None:  # torch may not be imported yet, and workers report the device before that
            return "not loaded"
        from ...pipeline.memory.device import device_name

        return device_name(self.loaded.profile)

    def memory(self) -> tuple[int, int] | None:
        """Peak and total device memory in bytes; None if it is not measured or no model is loaded."""
        if self.loaded is None:
            return None
        from ...pipeline.memory.device import device_memory

        return device_memory(self.loaded.profile)

    def explain(self, request: GenerationRequest) -> Explanation:
        """What ``generate`` would do; the body is the request with all defaults."""
        fitted = fit(request, self.name, self.capabilities)
        from ...weights.source import known_configs

        known_configs(self.config)  # refuse a model that does not exist
        resolved = self.resolve(fitted.request)
        body = resolved.model_dump()
        return explanation(self.name, fitted, self.capabilities, url=None, body=body, notes=self.notes(resolved))

    def resolve(self, request: GenerationRequest) -> ResolvedRequest:
        """The request with the model's defaults, and a random seed if it has none."""
        return ResolvedRequest.of(with_seed(request, self.capabilities), self.capabilities.defaults)

    def load(self, context: GenerationContext | None = None) -> LoadedModel:
        """Load the model for requests of the default size, or return the loaded one.

        Raises:
            HunyuanLocalError: the model cannot be loaded, or this backend is busy with a video.
        """
        context = context or GenerationContext()
        with self._one_at_a_time:
            self.check_model()
            choice = self.choose(self.resolve(GenerationRequest(prompt="any")), self._loaded_for)
            choice.announce(context.on_note)
            return self.load_in(choice.profile, context)

    def encode_ahead(self, requests: Sequence[GenerationRequest], folder: Path, context: GenerationContext) -> None:
        """Encode the prompts of upcoming requests into a folder in one pass, then unload the text encoders.

        Afterwards the transformer stays on the device between videos if it fits. Stops without an error when the
        context is cancelled. See :meth:`.text.prompt_encoder.PromptEncoder.encode_ahead`.

        Raises:
            ConfigError: the folder cannot be written.
            HunyuanLocalError: the model cannot be loaded, the text encoders do not fit on the device, or this backend
                is busy with a video.
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
        if choice is None:  # no request fits; generate refuses each of them
            return
        choice.announce(context.on_note)
        model = self.load_in(choice.profile, context)
        try:
            with translated_shortage("encode"):
                model.prompts.encode_ahead(
                    folder, requests, context.on_progress, context.on_note, context.cancel.is_set
                )
        except OSError as error:
            raise ConfigError(f"{folder}: cannot store encoded prompts: {error}; check the disk") from error
        self._encoded = folder

    def rewrite(self, request: GenerationRequest, context: GenerationContext | None = None) -> GenerationRequest:
        """Rewrite the prompt if the request asks for it.

        The language model stays on the GPU during denoising only if the plan says that both fit.
        """
        resolved = self.resolve(request)
        return self._prompt_rewriter.rewrite(
            request,
            context or GenerationContext(),
            lambda needed_bytes: self._place(resolved, self.choose(resolved, self._loaded_for))(needed_bytes),
        )

    def generate(self, request: GenerationRequest, context: GenerationContext | None = None) -> GenerationResult:
        """Generate one video and wait for its file; see :meth:`start`."""
        return self.start(request, context).result()

    def start(self, request: GenerationRequest, context: GenerationContext | None = None) -> PendingVideo:
        """Like :meth:`generate`, but return once the last frame is decoded: the next video can start meanwhile.

        If the device runs out of memory, retries with lower memory use from the last finished step. The result lists
        the changes; they also apply to later requests.

        Raises:
            HunyuanLocalError: this backend is busy with another video (raised immediately), or any error of
                :meth:`.base.Backend.generate`.
        """
        context = context or GenerationContext()
        with self._one_at_a_time:
            # 1. Make every check that can refuse the request before reading any weights.
            self.check_model()
            run = begin(request, context, name=self.config.name, resolve=self.resolve, model=self.config)
            choice = self.choose(run.request, self._loaded_for)
            run.rewrite(self._prompt_rewriter, self._place(run.request, choice))
            for text in self.notes(run.request):
                run.note(text)
            choice.announce(run.note)
            return self._make(run, choice.profile)

    def _make(self, run: Run[ResolvedRequest], profile: RuntimeProfile) -> PendingVideo:
        """Generate the video in this profile, or in a fallback of it if memory runs out."""
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
            # Outside the except block: the traceback's frames would keep the model alive during the unload.
            text = f"{retry.text}: {tiles.shrink()}" if retry.shrink_tiles else retry.text
            run.recoveries.append(text)
            run.note(text)
            if not retry.shrink_tiles:
                self._unload()
        if self.profile is not None:
            self.profile = profile
        return pending

    def _attempt(self, run: Run[ResolvedRequest], profile: RuntimeProfile, tiles: Tiles) -> PendingVideo:
        """Load the model, denoise and decode, resuming from the saved state if there is one."""
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
            # 3. From noise to latents.
            denoised = denoise(
                model, request, self.config.render_size(request.width, request.height), context.on_progress, run.note,
                context.cancel.is_set, checkpoint, previewer,
            )  # fmt: skip

            # 4. From latents to a file; the saved latents are deleted once the file is complete.
            return decode_to_file(run, model, denoised, fitting_tiles(model, tiles, profile), checkpoint.delete)
        except InvalidOutputError:
            checkpoint.delete()  # the same latents would give the same video
            raise
        except BaseException as error:  # such as a cancellation or a full disk: keep the finished steps
            checkpoint.rescue(request.seed, error, run.note)
            raise

    def close(self) -> None:
        """Unload the models and free their device memory."""
        self._prompt_rewriter.close()
        if self.loaded is not None:
            self._unload()

    def load_in(self, profile: RuntimeProfile, context: GenerationContext) -> LoadedModel:
        """The model in this profile; loads it if needed."""
        from ...pipeline.loading.loader import load_model

        # Tiles are chosen for each decoding, so a change of tiling does not require a reload.
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
        """Check that the files added to the model can be used and that the model exists locally or on the Hub.

        Done once, before planning for the model; a loaded model is not checked again.

        Raises:
            ConfigError, ModelLoadError: see :func:`hunyuan_local.planner.added_files.check_added_files` and
                :func:`hunyuan_local.weights.source.check_known`.
        """
        from ...weights.source import check_known  # imports the Hub client, which is slow

        if self.loaded is None:
            check_added_files(self.config)
            check_known(self.config)

    def choose(self, request: ResolvedRequest, loaded: RuntimeProfile | None, machine: Machine | None = None) -> Choice:
        """The profile that the user named, or the plan's choice for this request.

        Args:
            loaded: profile of the loaded model; None if no model is loaded.
            machine: the machine to plan for; None detects this machine and its free memory.

        Raises:
            GpuMemoryError, ConfigError: see :func:`.profile_choice.choose_profile`.
        """
        if self.profile is not None:
            return Choice(self.profile)
        choice = choose_profile(request, self.config, loaded, machine)
        return replace(choice, profile=with_cache(choice.profile, self.cache, self.config))

    def _place(self, request: ResolvedRequest, choice: Choice) -> FindPlace:
        """Choose where the language model runs that rewrites the prompt of this request."""
        return lambda needed_bytes: place_beside(
            request, self.config, choice, needed_bytes, is_empty=self.loaded is None
        )

    def _next_retry(
        self, fallback: OutOfMemoryFallback, error: GpuMemoryError, tiles: Tiles, request: ResolvedRequest
    ) -> Retry:
        """The next retry.

        Raises:
            GpuMemoryError: no retry is left; the message includes the remedy.
        """
        try:
            return fallback.next_retry(error, tiles.can_shrink)
        except GpuMemoryError as last:
            self._unload()
            found = plan(request, self.config, available_machine())
            raise GpuMemoryError(f"{last}; {remedy(found)}", error.stage, error.peak_bytes) from None

    def notes(self, request: ResolvedRequest) -> list[str]:
        """Notes about the model, and about the size if the video is scaled up to it."""
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
