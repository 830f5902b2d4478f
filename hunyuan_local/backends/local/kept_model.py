"""The model that stays loaded between videos, and the profile that it was loaded in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...config import ModelConfig, RuntimeProfile
from ...errors import ConfigError
from ...pipeline.library_imports import importing
from ...planner.added_files import check_added_files
from ...schema import GenerationRequest, Progress
from ..base import GenerationContext

if TYPE_CHECKING:
    from ...pipeline.model import LoadedModel


class KeptModel:
    """Loads a model when it is first needed, and again when another profile is needed.

    Attributes:
        config: the model.
        loaded: the loaded model; None until :meth:`load`.
        profile: the profile that it was loaded in, without tiling; None if no model is loaded.
    """

    def __init__(self, config: ModelConfig):
        self.config = config
        self.loaded: LoadedModel | None = None
        self.profile: RuntimeProfile | None = None
        self._encoded: Path | None = None

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

    def check(self) -> None:
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

    def load(self, profile: RuntimeProfile, context: GenerationContext) -> LoadedModel:
        """The model in this profile; loads it if needed.

        Raises:
            HunyuanLocalError: the model cannot be loaded.
        """
        with importing():
            from ...pipeline.loading.loader import load_model

        # Tiles are chosen for each decoding, so a change of tiling does not require a reload.
        untiled = profile.model_copy(update={"vae_tiling": False})
        if self.loaded is None or self.profile != untiled:
            self.unload()
            context.on_progress(Progress(stage="load"))
            self.loaded = load_model(self.config, profile, context.on_progress, context.on_note)
            self.profile = untiled
            if self._encoded is not None:
                self.loaded.prompts.use(self._encoded)
        self.loaded.profile = self.loaded.profile.model_copy(update={"vae_tiling": profile.vae_tiling})
        return self.loaded

    def encode_ahead(
        self, profile: RuntimeProfile, requests: Sequence[GenerationRequest], folder: Path, context: GenerationContext
    ) -> None:
        """Encode the prompts of upcoming requests into a folder; see :meth:`.backend.LocalBackend.encode_ahead`.

        Raises:
            ConfigError: the folder cannot be written.
            HunyuanLocalError: the model cannot be loaded, or the text encoders do not fit on the device.
        """
        from ...pipeline.memory.device import translated_shortage

        model = self.load(profile, context)
        try:
            with translated_shortage("encode"):
                model.prompts.encode_ahead(
                    folder, requests, context.on_progress, context.on_note, context.cancel.is_set
                )
        except OSError as error:
            raise ConfigError(f"{folder}: cannot store encoded prompts: {error}; check the disk") from error
        self._encoded = folder

    def unload(self) -> None:
        """Unload the model, and free what torch caches on the device."""
        if self.loaded is not None:
            self.loaded.placement.close()
        self.loaded = self.profile = None
        from ...pipeline.memory.device import free_device

        free_device()

    def close(self) -> None:
        """Unload the model if one is loaded."""
        if self.loaded is not None:
            self.unload()
