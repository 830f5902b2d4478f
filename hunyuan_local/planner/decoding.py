"""What decoding the latents costs, traced as diffusers' ``autoencoder_kl_hunyuan_video`` runs it.

Three ways are described, by two switches: spatial tiles or none, and all frames kept to the end (the
library's ``vae.decode``) or handed on piece by piece (``pipeline/decoder.py``). Temporal tiles are on in
all of them, as they are in the library. Knows nothing about where the weights are.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

from .architecture import Autoencoder
from .trace import Cost, Trace


@dataclass(frozen=True)
class Tiling:
    """Sizes of tiles in pixels and frames; the defaults are the library's.

    Attributes:
        side, side_stride: of a spatial tile; None decodes the whole picture at once.
        frames, frames_stride: of a temporal tile, which is decoded with one latent more.
    """

    side: int | None = 256
    side_stride: int = 192
    frames: int = 16
    frames_stride: int = 12


TILED = Tiling()
UNTILED = Tiling(side=None)


@dataclass(frozen=True)
class Decode:
    """One video to be decoded.

    Attributes:
        latents: (frames, height, width) of the latents.
        each: bytes of an activation's element.
        tiling: the tiles.
        streams: whether finished frames leave the device, as in this package, or stay until the end.
    """

    latents: tuple[int, int, int]
    each: int = 2
    tiling: Tiling = UNTILED
    streams: bool = True


@lru_cache(maxsize=256)
def trace_decode(config: Autoencoder, run: Decode) -> Cost:
    """The cost of decoding one video.

    The peak is that of the largest tile, with everything that is kept beside it.
    """
    tiles = _tiles(config, run)
    largest = max(tiles, key=lambda tile: tile[0] * tile[1] * tile[2])
    total = Cost(peak_bytes=_blending_peak(config, run))
    for tile, count in tiles.items():
        cost = _DecoderWalk(config, run.each, tile).trace(_kept_beside(config, run) if tile == largest else 0)
        total = total.then(cost, count)
    return total


@lru_cache(maxsize=256)
def largest_tensor(config: Autoencoder, run: Decode) -> int:
    """Elements of the largest tensor of the decoding."""
    tile = max(_tiles(config, run), key=lambda tile: tile[0] * tile[1] * tile[2])
    walk = _DecoderWalk(config, run.each, tile)
    walk.trace(0)
    return walk.largest


def explain_peak(config: Autoencoder, run: Decode) -> list[tuple[str, int]]:
    """Name and bytes of the tensors that live at the peak of the largest tile, the largest first."""
    largest = max(_tiles(config, run), key=lambda tile: tile[0] * tile[1] * tile[2])
    walk = _DecoderWalk(config, run.each, largest)
    walk.trace(_kept_beside(config, run))
    return walk.at_peak


def _tiles(config: Autoencoder, run: Decode) -> Counter[tuple[int, int, int]]:
    """Shape in latents of each tile that is decoded, and how many there are."""
    areas = [(h, w) for h in _cuts(config, run, run.latents[1]) for w in _cuts(config, run, run.latents[2])]
    return Counter((length, *area) for length in _temporal_lengths(config, run) for area in areas)


def _temporal_lengths(config: Autoencoder, run: Decode) -> list[int]:
    """Lengths in latents of the temporal tiles, in order (``_temporal_tiled_decode``)."""
    frames, ratio = run.latents[0], config.temporal_compression_ratio
    whole, stride = run.tiling.frames // ratio, run.tiling.frames_stride // ratio
    if frames <= whole:
        return [frames]
    return [min(whole + 1, frames - start) for start in range(0, frames, stride)]


def _cuts(config: Autoencoder, run: Decode, side: int) -> list[int]:
    """Lengths in latents of the tiles along one side (``tiled_decode``)."""
    ratio, tiling = config.spatial_compression_ratio, run.tiling
    if not _is_tiled(config, run):
        return [side]
    return [min(tiling.side // ratio, side - start) for start in range(0, side, tiling.side_stride // ratio)]


def _is_tiled(config: Autoencoder, run: Decode) -> bool:
    """Whether the picture is larger than one spatial tile."""
    side = run.tiling.side
    return side is not None and max(run.latents[1:]) > side // config.spatial_compression_ratio


def _pixels(config: Autoencoder, run: Decode, latent_frames: int) -> int:
    """Bytes of decoded frames, the first latent standing for one frame."""
    frames = (latent_frames - 1) * config.temporal_compression_ratio + 1
    area = run.latents[1] * run.latents[2] * config.spatial_compression_ratio**2
    return config.out_channels * frames * area * run.each


def _kept_beside(config: Autoencoder, run: Decode) -> int:
    """Bytes that live while the last of the largest tiles is decoded: latents, and the tiles finished before it."""
    frames, height, width = run.latents
    latents = config.latent_channels * frames * height * width
    # Scaled, in the autoencoder's precision; this package also keeps them as the denoising left them, in float32.
    kept = latents * (run.each + (4 if run.streams else 0))
    lengths = _temporal_lengths(config, run)
    if _is_tiled(config, run):
        # tiled_decode keeps the tiles of one temporal tile in `rows`.
        areas = [h * w for h in _cuts(config, run, height) for w in _cuts(config, run, width)]
        kept += _pixels(config, run, lengths[0]) * sum(areas[: _last_of_largest(areas)]) // (height * width)
    if run.streams:
        return kept + _pixels(config, run, 2)  # the overlap that the next piece is blended with
    return kept + sum(_pixels(config, run, length) for length in lengths[: _last_of_largest(lengths)])


def _last_of_largest(sizes: list[int]) -> int:
    """Index of the last among the largest."""
    return len(sizes) - 1 - sizes[::-1].index(max(sizes))


def _blending_peak(config: Autoencoder, run: Decode) -> int:
    """Bytes while finished tiles are put together, with no tile being decoded."""
    frames = run.latents[0]
    if not run.streams:
        # All tiles and the video that torch.cat makes of them; or, when the tiles are gone, the video and two
        # copies in VideoProcessor.postprocess_video.
        tiles = sum(_pixels(config, run, length) for length in _temporal_lengths(config, run))
        return _pixels(config, run, frames) + max(tiles, 2 * _pixels(config, run, frames))
    piece = _pixels(config, run, min(frames, run.tiling.frames // config.temporal_compression_ratio + 1))
    # _to_uint8: a float32 copy, and one for each of half, shift, clamp and the factor of 255, two at a time.
    return 2 * piece + 3 * piece * 4 // run.each


class _DecoderWalk:
    """``HunyuanVideoDecoder3D`` on one tile; shapes are (channels, frames, height, width)."""

    def __init__(self, config: Autoencoder, each: int, tile: tuple[int, int, int]):
        self.config, self.each = config, each
        self.frames, self.height, self.width = tile
        self.trace_ = Trace()
        self.at_peak: list[tuple[str, int]] = []
        self.largest = 0

    def trace(self, beside: int) -> Cost:
        """The cost of this tile, with so many bytes of other tensors in memory."""
        t, config = self.trace_, self.config
        channels = config.block_out_channels[-1]
        t.make("everything else", beside, moves=False)
        t.make("tile of latents", self._size(config.latent_channels), moves=False)
        t.convolution(self._count(config.latent_channels), config.latent_channels)
        t.make("post_quant_conv", self._size(config.latent_channels), moves=False)
        self._conv("post_quant_conv", "hidden_states", config.latent_channels, channels)
        self._middle(channels)
        previous = channels
        for own, factor in zip(reversed(config.block_out_channels), config.up_factors(), strict=True):
            self._up_block(previous, own, factor)
            previous = own
        self._norm("hidden_states", "normed", previous)
        t.rename("normed", "hidden_states")
        self._activate("hidden_states", "hidden_states", previous)
        self._conv("hidden_states", "decoded", previous, config.out_channels)
        self.at_peak = t.at_peak
        return t.cost()

    def _count(self, channels: int, border: int = 0) -> int:
        """Elements at the present size; ``border`` pixels more on each side and twice as many frames before."""
        return channels * (self.frames + 2 * border) * (self.height + 2 * border) * (self.width + 2 * border)

    def _size(self, channels: int, border: int = 0) -> int:
        return self._count(channels, border) * self.each

    def _conv(self, source: str, name: str, channels_in: int, channels_out: int, kernel: int = 3) -> None:
        """``HunyuanVideoCausalConv3d``: a padded copy (also for kernel 1), then the convolution.

        cuDNN's tensor-core kernels work with channels last. For the library's channels-first tensors
        they keep the padded input and the output a second time, in that order, as workspace.
        """
        t, border = self.trace_, kernel // 2
        padded, out = self._size(channels_in, border), self._size(channels_out)
        self.largest = max(self.largest, padded // self.each, out // self.each)
        t.make("padded", padded)
        t.convolution(self._count(channels_out), channels_in * kernel**3)
        t.make("workspace", padded + out)
        t.make(name, out, moves=False)
        t.drop("workspace", "padded")

    def _norm(self, source: str, name: str, channels: int) -> None:
        """``GroupNorm``, which keeps its input's precision."""
        self.trace_.make(name, self._size(channels))

    def _activate(self, source: str, name: str, channels: int) -> None:
        """``SiLU``, not in place."""
        self.trace_.make(name, self._size(channels))

    def _resnet(self, name: str, channels_in: int, channels_out: int) -> None:
        """``HunyuanVideoResnetBlockCausal3D``; ``name`` is the input, which lives as the residual, and the output."""
        t = self.trace_
        self._norm(name, "inner", channels_in)
        self._activate("inner", "inner", channels_in)
        self._conv("inner", "inner", channels_in, channels_out)
        self._norm("inner", "inner", channels_out)
        self._activate("inner", "inner", channels_out)
        self._conv("inner", "inner", channels_out, channels_out)
        if channels_in != channels_out:
            self._conv(name, "shortcut", channels_in, channels_out, kernel=1)
        t.make("sum", self._size(channels_out))
        t.drop("inner", *(["shortcut"] if channels_in != channels_out else []))
        t.rename("sum", name)

    def _middle(self, channels: int) -> None:
        """``HunyuanVideoMidBlock3D``; the decoder's own variable holds the block's input to the end."""
        t = self.trace_
        t.rename("hidden_states", "input of the block")
        t.make("hidden_states", 0)
        self._resnet("hidden_states", channels, channels)
        if self.config.mid_block_add_attention:
            self._attend(channels)
        self._resnet("hidden_states", channels, channels)
        t.drop("input of the block")

    def _attend(self, channels: int) -> None:
        """Attention of all positions of the tile, one head, under a causal mask that is written out.

        ``prepare_causal_attention_mask``: frame numbers of both sides are compared and replaced by 0
        or -inf in float32, then cast; ``meshgrid`` only makes views.
        """
        t, size = self.trace_, self._size(channels)
        tokens = self.frames * self.height * self.width
        t.make("x <= y", tokens**2)
        t.make("where", tokens**2 * 4)
        t.drop("x <= y")
        if self.each == 4:
            t.rename("where", "mask")
        else:
            t.make("mask", tokens**2 * self.each)
            t.drop("where")
        t.make("normed", size)
        for name in ("query", "key", "value"):
            t.matmul(tokens, channels, channels)
            t.make(name, size, moves=False)
        t.attention(tokens, tokens, channels)
        t.make("attended", size, moves=False)
        t.matmul(tokens, channels, channels)
        t.make("attended", size, moves=False)
        t.make("sum", size)
        t.drop("normed", "query", "key", "value", "attended", "mask")
        t.rename("sum", "hidden_states")

    def _up_block(self, channels_in: int, channels_out: int, factor: tuple[int, int] | None) -> None:
        """``HunyuanVideoUpBlock3D``; the decoder's own variable holds the block's input to the end."""
        t = self.trace_
        t.rename("hidden_states", "input of the block")
        t.make("hidden_states", 0)
        for index in range(self.config.layers_per_block + 1):
            self._resnet("hidden_states", channels_in if index == 0 else channels_out, channels_out)
        if factor is not None:
            self._upsample(channels_out, *factor)
        t.drop("input of the block")

    def _upsample(self, channels: int, time: int, space: int) -> None:
        """``HunyuanVideoUpsampleCausal3D``: the first frame grows in space alone, the others also in time."""
        t, before = self.trace_, self.frames
        frame = self._size(channels) // before
        t.make("first_frame", frame * space**2)
        if before > 1:
            t.make("other_frames", frame * (before - 1))  # contiguous
            t.make("other_frames", frame * (before - 1) * time * space**2)
        self.frames = (before - 1) * time + 1
        self.height, self.width = self.height * space, self.width * space
        if before > 1:
            t.make("upsampled", self._size(channels))
        self._conv("upsampled", "convolved", channels, channels)
        t.drop("first_frame", *(["other_frames", "upsampled"] if before > 1 else []))
        t.rename("convolved", "hidden_states")
