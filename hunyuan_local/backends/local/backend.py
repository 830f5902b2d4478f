"""Generates videos on this machine: chooses how each request runs, and keeps the model loaded between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...capabilities import Capabilities, fit, limits_of, settle
from ...config import LoraConfig, ModelConfig, RuntimeProfile, load_cache, load_model_config
from ...errors import FieldProblem, InvalidRequestError
from ...planner import Machine
from ...planner.tiles import TilesBySize
from ...resolved import ResolvedRequest
from ...schema import GenerationRequest, GenerationResult
from ..base import Explanation, GenerationContext, explanation, with_seed
from ..begin import OneAtATime, begin
from ..prompt_rewriting import Place, PromptRewriter
from .attempts import Attempts
from .kept_model import KeptModel
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
    from .decode_and_write import PendingVideo


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
        ModelLoadError: a Hub id without a preset, of which nothing is here and the Hub cannot be asked: its
            architecture determines the defaults, and whether requests need an image.
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
        config = model if isinstance(model, ModelConfig) else load_model_config(model)
        if revision is not None:
            config = config.with_revision(revision)
        if not config.is_described:
            from ...weights.source import with_own_preset  # imports the Hub client, which is slow

            config = with_own_preset(config)
        self.config = config.model_copy(update={"lora": (*config.lora, *lora)})
        self.cache = None if cache is None else load_cache(cache)
        self.profile = profile if isinstance(profile, RuntimeProfile) else named_profile(profile)
        if self.profile is not None:
            self.profile = with_cache(self.profile, self.cache, self.config)
        self.kept = KeptModel(self.config)
        self._tiles = TilesBySize(self.config)
        self._prompt_rewriter = PromptRewriter()
        self._one_at_a_time = OneAtATime()

    @property
    def capabilities(self) -> Capabilities:
        """Whether a request must have an image, and the defaults of the model."""
        return limits_of(self.config)

    @property
    def identity(self) -> str:
        """Identity of the model."""
        return self.config.identity

    @property
    def device(self) -> str:
        """Name of the device; ``not loaded`` until the model is loaded."""
        return self.kept.device

    def memory(self) -> tuple[int, int] | None:
        """Peak and total device memory in bytes; None if it is not measured or no model is loaded."""
        return self.kept.memory()

    def explain(self, request: GenerationRequest) -> Explanation:
        """What ``generate`` would do; the body is the request with all defaults."""
        fitted = fit(request, self.config.name, self.capabilities)
        from ...weights.source import known_configs

        known_configs(self.config)  # refuse a model that does not exist
        resolved = self.resolve(fitted.request)
        body = resolved.model_dump(mode="json")
        return explanation(self.name, fitted, self.capabilities, url=None, body=body, notes=self.notes(resolved))

    def resolve(self, request: GenerationRequest) -> ResolvedRequest:
        """The request with the model's defaults, and a random seed if it has none."""
        return ResolvedRequest.of(
            with_seed(request, self.capabilities), dict(self.config.defaults), self.config.image_sizes
        )

    def resolve_if_possible(self, request: GenerationRequest) -> ResolvedRequest:
        """Like :meth:`resolve`.

        Raises:
            InvalidRequestError: the image is not here.
            RequestLossError: the request lacks the image that the model needs, or has one that it cannot use.
        """
        settle(request, self.config.name, self.capabilities)
        if request.image is not None and not request.image.is_here:
            rule = "only the description of the image is here, not the image; give the file again"
            raise InvalidRequestError([FieldProblem("image", request.image, rule)])
        return self.resolve(request)

    def load(self, context: GenerationContext | None = None) -> LoadedModel:
        """Load the model for requests of the default size, or return the loaded one.

        Raises:
            HunyuanLocalError: the model cannot be loaded, or this backend is busy with a video.
        """
        context = context or GenerationContext()
        with self._one_at_a_time:
            self.kept.check()
            choice = self.choose(self.resolve(GenerationRequest(prompt="any")), self.kept.profile)
            choice.announce(context.on_note)
            return self.kept.load(choice.profile, context)

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
            self.kept.check()
            machine = available_machine() if self.profile is None else None
            choice = for_the_largest(
                map(self.resolve, requests),
                lambda request: self.choose(request, self.kept.profile, machine, len(requests)),
            )
            if choice is not None:  # otherwise no request fits, and generate refuses each of them
                choice.announce(context.on_note)
                self.kept.encode_ahead(choice.profile, requests, folder, context)

    def rewrite(self, request: GenerationRequest, context: GenerationContext | None = None) -> GenerationRequest:
        """Rewrite the prompt if the request asks for it.

        The language model stays on the GPU during denoising only if the plan says that both fit.
        """
        resolved, is_empty = self.resolve(request), self.kept.loaded is None

        def find(needed_bytes: int) -> Place:
            choice = self.choose(resolved, self.kept.profile)
            return place_beside(resolved, self.config, choice, is_empty=is_empty)(needed_bytes)

        return self._prompt_rewriter.rewrite(request, context or GenerationContext(), find)

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
            # Make every check that can refuse the request before reading any weights.
            self.kept.check()
            run = begin(request, context, name=self.config.name, resolve=self.resolve_if_possible, model=self.config)
            for text in self.notes(run.request):
                run.note(text)
            choice = self.choose(run.request, self.kept.profile)
            choice.announce(run.note)
            is_empty = self.kept.loaded is None
            run.rewrite(self._prompt_rewriter, place_beside(run.request, self.config, choice, is_empty=is_empty))
            tiles = self._tiles.of(run.request)
            attempts = Attempts(run, self.kept, choice.profile, tiles, self._prompt_rewriter)
            pending = attempts.make()
            if self.profile is not None:
                self.profile = attempts.profile
            return pending

    def close(self) -> None:
        """Unload the models and free their device memory."""
        self._prompt_rewriter.close()
        self.kept.close()

    def choose(
        self,
        request: ResolvedRequest,
        loaded: RuntimeProfile | None,
        machine: Machine | None = None,
        videos: int = 1,
    ) -> Choice:
        """The profile that the user named, or the plan's choice for this request.

        Args:
            loaded: profile of the loaded model; None if no model is loaded.
            machine: the machine to plan for; None detects this machine and its free memory.
            videos: number of videos to come, by which compiling is weighed.

        Raises:
            GpuMemoryError, ConfigError: see :func:`.profile_choice.choose_profile`.
        """
        if self.profile is not None:
            return Choice(self.profile)
        choice = choose_profile(request, self.config, loaded, machine, videos)
        return replace(choice, profile=with_cache(choice.profile, self.cache, self.config))

    def notes(self, request: ResolvedRequest) -> list[str]:
        """Notes about the model, about the image, and about the size if the video is scaled up to it."""
        from ...weights.licence import notices_of

        notes = notices_of(self.config)
        if request.image is not None:
            notes += request.image.notes
        width, height = self.config.render_size(request.width, request.height)
        if (width, height) != (request.width, request.height):
            factor = min(request.width / width, request.height / height)
            notes.append(
                f"{self.config.name} renders at {width}x{height}; the encoder scales up about "
                f"{factor:.1f} times to {request.width}x{request.height}"
            )
        return notes
