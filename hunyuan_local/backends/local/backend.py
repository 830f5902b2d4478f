"""Makes videos on this machine: loads the model once, then request by request to an mp4.

The order of the work is here; the work itself is in ``pipeline/``, ``gate`` and ``video``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...capabilities import Capabilities, fit
from ...config import LoraConfig, ModelConfig, RuntimeProfile, load_cache, load_model_config
from ...errors import ConfigError, GpuMemoryError, InvalidOutputError
from ...planner import plan
from ...schema import GenerationRequest, GenerationResult, Progress
from ...video import check_output_path
from ..base import Explanation, GenerationContext, explanation, preview_path, with_seed
from ..prompt_rewriting import Place, PromptRewriter, forget_rewriting, rewriting_notes
from ..safety_check import prepare
from .decode_and_write import PendingVideo, Run, decode_to_file, default_output
from .out_of_memory import OutOfMemoryFallback, Retry, remedy
from .profile_choice import available_machine, choose_profile, for_the_largest, named_profile, place_beside, with_cache
from .saved_state import facts_of, kept_rewriting, open_checkpoint
from .vae_tiles import Tiles, choose_for

if TYPE_CHECKING:
    from ...pipeline.checkpoint import Checkpoint
    from ...pipeline.model import LoadedModel
    from ...pipeline.preview import Previewer


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
        self._tiles: dict[tuple[tuple[int, int], int], Tiles] = {}
        self._prompt_rewriter = PromptRewriter(self._place)

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
        from ...pipeline.memory.device import device_name

        return "not loaded" if self.loaded is None else device_name(self.loaded.profile)

    def memory(self) -> tuple[int, int] | None:
        """The most bytes of the device that were taken so far, and all it has; None where it does not count."""
        from ...pipeline.memory.device import device_memory

        return None if self.loaded is None else device_memory(self.loaded.profile)

    def explain(self, request: GenerationRequest) -> Explanation:
        """See :class:`hunyuan_local.backends.base.Backend`; the body is the request, complete."""
        fitted = fit(request, self.name, self.capabilities)
        resolved = self.resolve(fitted.request)
        notes = self.notes(resolved, self.config.render_size(resolved.width, resolved.height))
        body = resolved.model_dump()
        return explanation(self.name, fitted, self.capabilities, url=None, body=body, notes=notes)

    def resolve(self, request: GenerationRequest) -> GenerationRequest:
        """The request with the model's defaults and a random seed where nothing was given."""
        return with_seed(request, self.capabilities).with_defaults(self.capabilities.defaults)

    def load(self, context: GenerationContext | None = None) -> LoadedModel:
        """Load the model for requests of its usual size, or return the loaded one."""
        context = context or GenerationContext()
        request = self.resolve(GenerationRequest(prompt="any"))
        return self.load_in(self.choose(request, context.on_note, self._loaded_for), context)

    def encode_ahead(self, requests: Sequence[GenerationRequest], folder: Path, context: GenerationContext) -> None:
        """Encode the prompts of requests to come into a folder, all at once; then the text encoders leave.

        From now on the transformer stays on the device between videos, where there is room for it. Stops,
        without an error, when the context is cancelled. See :meth:`.text.prompt_encoder.PromptEncoder.encode_ahead`.

        Raises:
            ConfigError: the folder cannot be written.
            HunyuanLocalError: the model cannot be loaded, or the device does not hold the text encoders.
        """
        from ...pipeline.memory.device import translated_shortage

        profile = for_the_largest(
            map(self.resolve, requests), lambda request: self.choose(request, context.on_note, self._loaded_for)
        )
        if profile is None:  # each of them will be told by itself
            return
        model = self.load_in(profile, context)
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
        return self._prompt_rewriter.rewrite(request, context or GenerationContext())

    def generate(self, request: GenerationRequest, context: GenerationContext | None = None) -> GenerationResult:
        """Make one video; see :class:`hunyuan_local.backends.base.Backend` and :meth:`start`."""
        return self.start(request, context).result()

    def start(self, request: GenerationRequest, context: GenerationContext | None = None) -> PendingVideo:
        """As :meth:`generate`, but return when the last frame is decoded: the next video need not wait for the file.

        Where the device's memory runs out, it is tried again in smaller pieces, from the last finished
        step on; what was changed is in the result, and stays so for the requests to come.
        """
        context = context or GenerationContext()
        if context.output is not None:
            check_output_path(context.output, context.overwrite)
        prepare(context.safety, context.on_note)
        forget_rewriting(request, context)
        # A prompt that was rewritten, and a seed that was drawn, before an interruption are kept.
        checkpoint = open_checkpoint(request, self.config, context)
        if request.awaits_rewriting:
            request = kept_rewriting(checkpoint, request) or self.rewrite(request, context)
        began = time.monotonic()

        # 1. Everything that can be refused is refused before any of the model's weights is read.
        if request.seed is None:
            request = request.replace(seed=checkpoint.seed())
        request = self.resolve(request)
        output = context.output or default_output(self.config.name, request.seed)
        check_output_path(output, context.overwrite)
        render_size = self.config.render_size(request.width, request.height)
        run = Run(request, output, render_size, context, began, notes=rewriting_notes(request, context))
        for text in self.notes(request, run.render_size):
            run.note(text)
        fallback = OutOfMemoryFallback(self.choose(request, run.note, self._loaded_for), self._why_impossible)
        self._prompt_rewriter.make_room(request)
        tiles = self._tiles.setdefault((run.render_size, request.num_frames), Tiles(self.config, request))

        while True:
            try:
                pending = self._attempt(run, fallback.profile, tiles, checkpoint)
                break
            except GpuMemoryError as error:
                if self._prompt_rewriter.leave_gpu():
                    continue
                if error.stage == "decode" and self.loaded.placement.has_evictable:
                    self.loaded.placement.evict()
                    continue
                retry = self._next_retry(fallback, error, tiles, request)
            # Not inside the block above: the error's frames keep the model alive.
            text = f"{retry.text}: {tiles.shrink()}" if retry.shrink_tiles else retry.text
            run.recoveries.append(text)
            run.note(text)
            if not retry.shrink_tiles:
                self._unload()
        if self.profile is not None:
            self.profile = fallback.profile
        return pending

    def _attempt(self, run: Run, profile: RuntimeProfile, tiles: Tiles, checkpoint: Checkpoint) -> PendingVideo:
        """The way from the model to the file, or what is left of it."""
        from ...pipeline.denoise import denoise

        # 2. The model.
        context = run.context
        model = self.load_in(profile, context)
        run.loaded = run.loaded or time.monotonic()

        checkpoint.facts = facts_of(model, run.request, run.render_size)
        try:
            # 3. Noise to latents.
            denoised = denoise(
                model, run.request, run.render_size, context.on_progress, run.note, context.cancel.is_set, checkpoint,
                self.previewer(run),
            )  # fmt: skip

            # 4. Latents to a file; until it is there, the saved latents stay.
            return decode_to_file(run, model, denoised, choose_for(model, tiles, profile), checkpoint.delete)
        except InvalidOutputError:
            checkpoint.delete()  # the same latents would give the same video
            raise
        except BaseException as error:  # cancelled, or a full disk: while this process lives, no finished step is lost
            checkpoint.rescue(run.request.seed, error, run.note)
            raise

    def previewer(self, run: Run) -> Previewer | None:
        """What writes pictures of the unfinished video, where they are asked for and can be made."""
        from ...pipeline.preview import Previewer

        if not run.context.preview_every:
            return None
        if self.config.latent_preview is None:
            run.note(f"no previews: the config of {self.config.name} has no latent_preview, a map to colours")
            return None
        return Previewer(self.config.latent_preview, preview_path(run.output), run.context.preview_every, run.note)

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

    def choose(
        self, request: GenerationRequest, note: Callable[[str], None], loaded: RuntimeProfile | None
    ) -> RuntimeProfile:
        """The profile that was named, or the plan's choice for this request where the model is loaded in ``loaded``."""
        if self.profile is not None:
            return self.profile
        choice = choose_profile(request, self.config, loaded)
        if choice.reason is not None:
            note(choice.reason)
        return with_cache(choice.profile, self.cache, self.config)

    def _place(self, request: GenerationRequest, needed_bytes: int) -> Place:
        """Where a language model goes that rewrites the prompt of this request."""
        request = self.resolve(request)
        profile = self.choose(request, lambda text: None, self._loaded_for)
        return place_beside(request, self.config, profile, needed_bytes, is_empty=self.loaded is None)

    def _why_impossible(self, profile: RuntimeProfile) -> str | None:
        """Why the loader would refuse a profile here, or None if it would not."""
        from ...pipeline.loading.loader import check_precision

        try:
            check_precision(self.config, profile)
        except ConfigError as error:
            return str(error)
        return None

    def _next_retry(
        self, fallback: OutOfMemoryFallback, error: GpuMemoryError, tiles: Tiles, request: GenerationRequest
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

    def notes(self, request: GenerationRequest, render_size: tuple[int, int]) -> list[str]:
        """What the user should know of the model, and of a size at which it does not render."""
        notes = self.config.notices
        if render_size != (request.width, request.height):
            factor = min(request.width / render_size[0], request.height / render_size[1])
            notes.append(
                f"{self.config.name} renders at {render_size[0]}x{render_size[1]}; the encoder scales up about "
                f"{factor:.1f} times to {request.width}x{request.height}"
            )
        return notes
