"""The cost of decoding the latents, traced as diffusers' ``autoencoder_kl_hunyuan_video`` runs it.

Covers spatial tiles of any size or none, and frames that are all kept to the end (``vae.decode``) or streamed
(``pipeline/decode.py``). Temporal tiles are always on, as in diffusers. Sizes: n latent frames give ``4 * (n - 1) + 1``
frames, and each spatial side is 8 times as long. Knows nothing about where the weights are.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

from ..config.tiling import TILED as TILED
from ..config.tiling import UNTILED, Tiling
from .architecture import Autoencoder
from .trace import Cost, Trace


@dataclass(frozen=True)
class Decode:
    """How one video is decoded.

    Attributes:
        latents: (frames, height, width) of the latents.
        each: bytes per element of an activation.
        tiling: the tiles.
        streams: whether finished frames leave the device immediately, as in this package, or stay until the end.
    """

    latents: tuple[int, int, int]
    each: int = 2
    tiling: Tiling = UNTILED
    streams: bool = True


@lru_cache(maxsize=4096)
def trace_decode(config: Autoencoder, run: Decode) -> Cost:
    """Cost of decoding one video.

    The peak is the largest over the tiles of (peak of the tile + other tensors kept at that time), and of blending
    and stitching.
    """
    tile, others = _heaviest_tile(config, run)
    peak = _trace_tile(config, run.each, tile)[0].peak_bytes + others
    total = Cost(peak_bytes=max(peak, _blending_peak(config, run), _stitching_peak(config, run)))
    for tile, count in _tiles(run).items():
        total = total.then(_trace_tile(config, run.each, tile)[0], count)
    return total


def largest_tensor(config: Autoencoder, run: Decode) -> int:
    """Number of elements of the largest tensor in the decoding."""
    return _trace_tile(config, run.each, max(_tiles(run), key=math.prod))[1]


def explain_peak(config: Autoencoder, run: Decode) -> list[tuple[str, int]]:
    """Name and bytes of the tensors alive at the peak of the heaviest tile, largest first."""
    tile, others = _heaviest_tile(config, run)
    walk = _DecoderWalk(config, run.each, tile)
    walk.trace(others)
    return walk.at_peak


@lru_cache(maxsize=8192)
def _trace_tile(config: Autoencoder, each: int, tile: tuple[int, int, int]) -> tuple[Cost, int]:
    """Cost of one tile by itself, and the number of elements of its largest tensor."""
    walk = _DecoderWalk(config, each, tile)
    return walk.trace(0), walk.largest


def _tiles(run: Decode) -> Counter[tuple[int, int, int]]:
    """Shape (in latents) of each distinct tile, and how often it occurs."""
    lengths, areas = Counter(run.tiling.lengths(run.latents[0])), Counter(run.tiling.areas(*run.latents[1:]))
    return Counter({(length, *area): lengths[length] * areas[area] for length in lengths for area in areas})


def _heaviest_tile(config: Autoencoder, run: Decode) -> tuple[tuple[int, int, int], int]:
    """The tile with the highest peak among the longest temporal tiles, and the bytes kept during it."""
    length, kept, before = max(run.tiling.lengths(run.latents[0])), _kept(config, run), 0
    others = {}
    for area in run.tiling.areas(*run.latents[1:]):
        others[length, *area] = kept + _rows(config, run, before)  # among equal tiles, the last has most kept
        before += math.prod(area)
    return max(others.items(), key=lambda item: _trace_tile(config, run.each, item[0])[0].peak_bytes + item[1])


def _pixels(config: Autoencoder, run: Decode, latent_frames: int) -> int:
    """Bytes of decoded frames; the first latent frame gives one frame, each later one 4."""
    frames = (latent_frames - 1) * config.temporal_compression_ratio + 1
    area = run.latents[1] * run.latents[2] * config.spatial_compression_ratio**2
    return config.out_channels * frames * area * run.each


def _kept(config: Autoencoder, run: Decode) -> int:
    """Bytes alive while the last of the longest temporal tiles is decoded: the latents and earlier frames."""
    # Scaled latents in the autoencoder's dtype; this package also keeps the float32 latents of the denoising.
    latents = config.latent_channels * math.prod(run.latents) * (run.each + (4 if run.streams else 0))
    if run.streams:
        return latents + _pixels(config, run, 2)  # the overlap with the next piece
    lengths = run.tiling.lengths(run.latents[0])
    last_of_longest = len(lengths) - 1 - lengths[::-1].index(max(lengths))
    return latents + sum(_pixels(config, run, length) for length in lengths[:last_of_longest])


def _rows(config: Autoencoder, run: Decode, area: int) -> int:
    """Bytes of decoded spatial tiles with this area in latents; diffusers' variable is ``rows``."""
    return _pixels(config, run, max(run.tiling.lengths(run.latents[0]))) * area // (run.latents[1] * run.latents[2])


def _stitching_peak(config: Autoencoder, run: Decode) -> int:
    """Bytes while spatial tiles are joined (``tiled_decode``): the tiles, the joined rows and the whole frames."""
    if not run.tiling.cuts_picture(*run.latents[1:]):
        return 0
    tiles = _rows(config, run, sum(height * width for height, width in run.tiling.areas(*run.latents[1:])))
    return _kept(config, run) + tiles + 2 * _pixels(config, run, max(run.tiling.lengths(run.latents[0])))


def _blending_peak(config: Autoencoder, run: Decode) -> int:
    """Bytes while temporal tiles are joined, with no tile being decoded."""
    frames = run.latents[0]
    if not run.streams:
        # All tiles and the video that torch.cat joins them to; or, once the tiles are freed, the video and two copies
        # in VideoProcessor.postprocess_video.
        tiles = sum(_pixels(config, run, length) for length in run.tiling.lengths(run.latents[0]))
        return _pixels(config, run, frames) + max(tiles, 2 * _pixels(config, run, frames))
    piece = _pixels(config, run, min(frames, run.tiling.frames // config.temporal_compression_ratio + 1))
    # _to_uint8 makes a float32 copy, then one each for scale, shift, clamp and the factor 255; at most three are alive.
    return 2 * piece + 3 * piece * 4 // run.each


class _DecoderWalk:
    """Traces ``HunyuanVideoDecoder3D`` on one tile; shapes are (channels, frames, height, width)."""

    def __init__(self, config: Autoencoder, each: int, tile: tuple[int, int, int]):
        self.config, self.each = config, each
        self.frames, self.height, self.width = tile
        self.trace_ = Trace()
        self.at_peak: list[tuple[str, int]] = []
        self.largest = 0

    def trace(self, others: int) -> Cost:
        """Cost of this tile, with ``others`` bytes of other tensors in memory."""
        t, config = self.trace_, self.config
        channels = config.block_out_channels[-1]
        t.make("everything else", others, moves=False)
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
        """Elements at the current size, padded by ``border`` pixels per side and twice as many frames in front."""
        return channels * (self.frames + 2 * border) * (self.height + 2 * border) * (self.width + 2 * border)

    def _size(self, channels: int, border: int = 0) -> int:
        return self._count(channels, border) * self.each

    def _conv(self, source: str, name: str, channels_in: int, channels_out: int, kernel: int = 3) -> None:
        """``HunyuanVideoCausalConv3d``: a padded copy (even for kernel 1), then the convolution.

        cuDNN's tensor-core kernels need channels-last tensors. diffusers' tensors are channels-first, so cuDNN
        keeps second copies of the padded input and of the output as workspace.
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
        """``GroupNorm``; the output has the input's dtype."""
        self.trace_.make(name, self._size(channels))

    def _activate(self, source: str, name: str, channels: int) -> None:
        """``SiLU``, not in place."""
        self.trace_.make(name, self._size(channels))

    def _resnet(self, name: str, channels_in: int, channels_out: int) -> None:
        """``HunyuanVideoResnetBlockCausal3D``; ``name`` is the input (alive as the residual), then the output."""
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
        """``HunyuanVideoMidBlock3D``; the decoder's variable keeps the block's input alive to the end."""
        t = self.trace_
        t.rename("hidden_states", "input of the block")
        t.make("hidden_states", 0)
        self._resnet("hidden_states", channels, channels)
        if self.config.mid_block_add_attention:
            self._attend(channels)
        self._resnet("hidden_states", channels, channels)
        t.drop("input of the block")

    def _attend(self, channels: int) -> None:
        """Single-head attention over all positions of the tile, with a causal mask [tokens, tokens] in memory.

        ``prepare_causal_attention_mask`` compares frame numbers of queries and keys, sets 0 or -inf in float32, and
        casts the result; ``meshgrid`` only makes views.
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
        """``HunyuanVideoUpBlock3D``; the decoder's variable keeps the block's input alive to the end."""
        t = self.trace_
        t.rename("hidden_states", "input of the block")
        t.make("hidden_states", 0)
        for index in range(self.config.layers_per_block + 1):
            self._resnet("hidden_states", channels_in if index == 0 else channels_out, channels_out)
        if factor is not None:
            self._upsample(channels_out, *factor)
        t.drop("input of the block")

    def _upsample(self, channels: int, time: int, space: int) -> None:
        """``HunyuanVideoUpsampleCausal3D``: the first frame is only upsampled in space, the others also in time."""
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
