"""Previews of a video during denoising: a linear map from its latents to RGB, written as PNG.

The map replaces the decoder. It costs one product with a 16 x 3 matrix and shows colors and layout at an eighth of
the size, without detail. Knows nothing about how the map was fitted or who looks at the previews.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ..config import LatentPreview
from ..errors import ConfigError
from ..video.picture import write_picture

# Target size in pixels of a frame's shorter side; a frame is never scaled beyond the video's own size.
SHORT_SIDE_PX = 80
LARGEST_SCALE = 8


class Previewer:
    """Writes a preview every few steps of one denoising run, each replacing the last.

    A preview needs the latents before its step, so ``see`` must be called for every step; it keeps a copy only
    before a step that is due. The first step of a run has no preview, because the latents before it are not known;
    the very last step needs no earlier latents. With a bfloat16 transformer, diffusers rounds the latents to
    bfloat16 too, which makes previews of the first steps grainy, since those steps change little.

    Args:
        preview: the map of this model's latents.
        path: the preview file, PNG.
        every: write a preview every this many steps; the last step always has one.
        on_note: called once if the preview cannot be written; the video continues without previews.
        hidden: latent frames before the first of the video, which previews do not show.

    Raises:
        ValueError: ``every`` is less than 1.
    """

    def __init__(self, preview: LatentPreview, path: Path, every: int, on_note: Callable[[str], None], hidden: int = 0):
        if every < 1:
            raise ValueError(f"every must be 1 or more, not {every}")
        self.preview, self.path, self.every, self.on_note, self.hidden = preview, path, every, on_note, hidden
        self._before: torch.Tensor | None = None
        self._failed = False

    def see(self, step: int, total: int, latents: torch.Tensor, sigmas: torch.Tensor) -> Path | None:
        """Handle a finished step; returns the path of the preview if this step has one.

        ``step`` and ``total`` may count the steps of the whole video or of this run: noise levels are indexed from
        the end of ``sigmas``, so only the choice of due steps differs.

        Args:
            step: number of finished steps, from 1, as in ``Progress``.
            total: the value of ``step`` at the end of the denoising.
            latents: [1, 16, T, H, W] after the step; not modified.
            sigmas: the scheduler's noise levels: one for each step of this run, and a final one for its end.

        Raises:
            ConfigError: the map has another number of channels; raised at the first step.
            ValueError: ``step`` is not in 1..``total``, or ``sigmas`` has no entry for it.
        """
        if not (1 <= step <= total and total - step + 2 <= len(sigmas)):
            raise ValueError(f"step {step} of {total} does not belong to a run of {len(sigmas) - 1} steps")
        _check_channels(self.preview, latents)
        if self._failed:
            return None
        latents, before, self._before = latents[:, :, self.hidden :], self._before, None
        if self._is_due(step + 1, total):
            self._before = latents.clone()
        if not self._is_due(step, total):
            return None
        sigma_before, sigma_after = sigmas[step - total - 2 :][:2].tolist()
        if sigma_after > 0:
            if before is None:
                return None
            latents = predict_clean(before, latents, sigma_before, sigma_after)
        return self._write(latents)

    def _is_due(self, step: int, total: int) -> bool:
        return step <= total and (step % self.every == 0 or step == total)

    def _write(self, clean: torch.Tensor) -> Path | None:
        scale = min(LARGEST_SCALE, max(1, SHORT_SIDE_PX // min(clean.shape[-2:])))
        try:
            write_picture(preview_frames(clean, self.preview), self.path, scale)
        except OSError as error:
            self._failed, self._before = True, None
            self.on_note(f"no more previews: {self.path} cannot be written: {error}; the video continues without them")
            return None
        return self.path


def predict_clean(before: torch.Tensor, after: torch.Tensor, sigma_before: float, sigma_after: float) -> torch.Tensor:
    """Predict the clean latents from one Euler step of flow matching.

    On the straight path ``latents = (1 - sigma) * clean + sigma * noise``, the step has the velocity
    ``v = (after - before) / (sigma_after - sigma_before)``, so ``clean = after - sigma_after * v``.

    Args:
        before: latents before the step, of any shape.
        after: latents after it, of the same shape.
        sigma_before: noise level of ``before``; 1 is pure noise.
        sigma_after: noise level of ``after``, lower than that.

    Returns:
        float32, of the same shape.

    Raises:
        ValueError: ``sigma_after`` is not less than ``sigma_before``.
    """
    if not sigma_after < sigma_before:
        raise ValueError(f"sigma must decrease in a step, not go from {sigma_before} to {sigma_after}")
    after = after.float()
    return after - (sigma_after / (sigma_after - sigma_before)) * (after - before.float())


def preview_frames(latents: torch.Tensor, preview: LatentPreview, count: int = 4) -> np.ndarray:
    """Map evenly spaced latent frames to RGB, including the first and the last.

    Args:
        latents: [1, 16, T, H, W] from the denoising, on any device.
        preview: the map of this model's latents.
        count: number of frames; all frames if there are fewer.

    Returns:
        uint8 [min(count, T), H, W, 3] on the CPU.

    Raises:
        ConfigError: the map has another number of channels.
    """
    _check_channels(preview, latents)
    length = latents.shape[2]
    chosen = torch.linspace(0, length - 1, min(count, length)).round().long()
    shown = latents[0, :, chosen.to(latents.device)].float()
    factors, bias = (torch.tensor(part, device=shown.device) for part in (preview.factors, preview.bias))
    rgb = torch.einsum("cthw,cr->thwr", shown, factors) + bias
    return ((rgb.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu().numpy()


def _check_channels(preview: LatentPreview, latents: torch.Tensor) -> None:
    if len(preview.factors) != latents.shape[1]:
        raise ConfigError(
            f"latent_preview.factors: {len(preview.factors)} rows; the latents have {latents.shape[1]} channels, and "
            "each needs a row of three numbers; correct the model's config or remove latent_preview"
        )
