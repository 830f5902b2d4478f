"""Pictures of a video that is still being denoised: a linear map from its latents to colours, written as PNG.

The map replaces the decoder: it costs a product with a 16 x 3 matrix and shows colours and places at an eighth of
the size, no detail. Knows nothing of how the map was found or of who looks at the picture.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ..config import LatentPreview
from ..errors import ConfigError
from ..video.picture import write_picture

# A frame's shorter side gets about so many pixels, but a frame is never larger than the video's own.
SHORT_SIDE_PX = 80
LARGEST_SCALE = 8


class Previewer:
    """Writes a picture every few steps of one run of the denoising, each in the place of the last one.

    Told of every step, it keeps a copy of the latents before a step that is due, and no others. A step that is due
    but the first of its run has no picture, since the latents before it are not handed out; the very last step
    needs none. Under a transformer in bfloat16 the library rounds the latents to that as well, and the pictures of
    the first steps, which change them little, are grainy.

    Args:
        preview: the map of this model's latents.
        path: the picture, PNG.
        every: write one after so many steps; the last step always has one.
        on_note: told once if the picture cannot be written; the video goes on without.

    Raises:
        ValueError: ``every`` is less than 1.
    """

    def __init__(self, preview: LatentPreview, path: Path, every: int, on_note: Callable[[str], None]):
        if every < 1:
            raise ValueError(f"every must be 1 or more, not {every}")
        self.preview, self.path, self.every, self.on_note = preview, path, every, on_note
        self._before: torch.Tensor | None = None
        self._failed = False

    def see(self, step: int, total: int, latents: torch.Tensor, sigmas: torch.Tensor) -> Path | None:
        """Take note of a finished step; the path of the picture if it has one.

        ``step`` and ``total`` may both count the steps of the video or both those of this run: noise levels are
        taken from the end of ``sigmas``, and only which steps are due differs.

        Args:
            step: the finished steps, from 1, as in ``Progress``.
            total: what ``step`` is when the denoising is done.
            latents: [1, 16, T, H, W] after the step; they stay as they are.
            sigmas: the scheduler's noise levels, one for each step of this run and a last one for its end.

        Raises:
            ConfigError: the map is of another number of channels; said at the first step.
            ValueError: ``step`` is not one of ``total``, or ``sigmas`` does not reach back to it.
        """
        if not (1 <= step <= total and total - step + 2 <= len(sigmas)):
            raise ValueError(f"step {step} of {total} does not belong to a run of {len(sigmas) - 1} steps")
        _check_channels(self.preview, latents)
        if self._failed:
            return None
        before, self._before = self._before, None
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
            self.on_note(f"no more previews: {self.path} cannot be written: {error}; the video goes on without them")
            return None
        return self.path


def predict_clean(before: torch.Tensor, after: torch.Tensor, sigma_before: float, sigma_after: float) -> torch.Tensor:
    """What the denoising is heading for: the clean latents that one Euler step of flow matching points to.

    The step follows the velocity ``v = (after - before) / (sigma_after - sigma_before)``, and on the straight path
    ``latents = (1 - sigma) * clean + sigma * noise`` the clean ones are ``after - sigma_after * v``.

    Args:
        before: latents before the step, of any shape.
        after: latents after it, of the same shape.
        sigma_before: noise level of ``before``, 1 for pure noise.
        sigma_after: noise level of ``after``, less than that.

    Returns:
        float32 of that shape.

    Raises:
        ValueError: ``sigma_after`` is not less than ``sigma_before``.
    """
    if not sigma_after < sigma_before:
        raise ValueError(f"sigma must fall in a step, not go from {sigma_before} to {sigma_after}")
    after = after.float()
    return after - (sigma_after / (sigma_after - sigma_before)) * (after - before.float())


def preview_frames(latents: torch.Tensor, preview: LatentPreview, count: int = 4) -> np.ndarray:
    """Evenly spaced latent frames through the map, the first and the last among them.

    Args:
        latents: [1, 16, T, H, W] as the denoising leaves them, on any device.
        preview: the map of this model's latents.
        count: how many frames; all of them where there are fewer.

    Returns:
        uint8 [min(count, T), H, W, 3] on the CPU.

    Raises:
        ConfigError: the map is of another number of channels.
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
            "each needs a row of three numbers; correct the model's config or leave latent_preview out of it"
        )
