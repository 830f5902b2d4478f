"""Where each component is: kept on the device, there for its own stage alone, or streamed there in pieces.

One object a loaded model. It places a component once, when it is loaded, and moves those that visit
the device. How much memory that takes is the planner's matter.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator

import accelerate
import torch
from diffusers.hooks import apply_group_offloading

from ...config import RuntimeProfile, cache_dir
from ...durable import OwnFolder
from ...errors import ConfigError
from ..diffusers_private import is_in_4_bits, is_in_8_bits
from ..torch_private import set_allocator

# bitsandbytes turns weights into 4 or 8 bits as they reach the GPU, so they must be loaded there.
_QUANTIZED_ON_DEVICE = ("nf4", "llm-int8")

# Which components that were asked to stay are left on the device while another one works. The transformer
# leaves for the large text encoder: the two together need more than cards that offload have.
_NEIGHBOURS = {
    "text_encoder": frozenset({"text_encoder_2"}),
    "text_encoder_2": frozenset({"text_encoder"}),
    "vae": frozenset({"transformer"}),
}


class Placement:
    """The places of one model's components, from its profile.

    Args:
        profile: its ``device``, ``offload``, ``placement`` and ``group`` decide. With ``device: cpu`` every
            kind of offload works too, from main memory to main memory: it saves nothing there, but runs
            the very same code.
    """

    def __init__(self, profile: RuntimeProfile):
        self._profile = profile
        self._device = torch.device(profile.device)
        self._visiting: dict[str, torch.nn.Module] = {}
        self._present: set[str] = set()
        self._staying: frozenset[str] = frozenset()
        self._folders: list[OwnFolder] = []

    def device_of(self, component: str) -> torch.device:
        """Where a component computes, and so where its inputs have to be."""
        return torch.device("cpu") if self._profile.residence(component) == "cpu" else self._device

    def loading_device(self, component: str) -> torch.device:
        """Where its weights are read to: at once to the device for what stays there."""
        method = self._profile.quantization if component == "transformer" else None
        if method == "fp8":  # cast after reading, when it is small enough for devices that it would not fit in full
            return torch.device("cpu")
        if method in _QUANTIZED_ON_DEVICE or self._profile.residence(component) == "device":
            return self._device
        return torch.device("cpu")

    def place(self, component: str, module: torch.nn.Module) -> None:
        """Bring a component to its place, or hook it to be brought there when it is needed.

        Raises:
            torch.OutOfMemoryError: the device does not hold it.
        """
        residence = self._profile.residence(component)
        if residence == "device":
            if not is_in_8_bits(module):
                module.to(self._device)
        elif residence == "visit":
            # What bitsandbytes holds in 8 bits cannot leave the GPU.
            if not is_in_8_bits(module):
                module.to("cpu")
                self._visiting[component] = module
        elif residence == "group":
            # Streaming brings the weights of bitsandbytes back to the GPU and not the scales beside them: they stay.
            if not is_in_4_bits(module):
                module.to("cpu")
            self._stream(component, module)
        elif residence == "sequential":
            # Buffers of the component itself are not moved by the hooks of its layers.
            has_parameters = any(True for _ in module.parameters(recurse=False))
            accelerate.cpu_offload(module, self._device, offload_buffers=has_parameters)

    @contextlib.contextmanager
    def active(self, component: str) -> Iterator[None]:
        """Have a component on the device inside, and of the visitors no other; afterwards no visitor at all.

        What was asked to stay stays afterwards, and meanwhile where there is room for it beside this one.
        """
        self._send_away(but={component} | (self._staying & _NEIGHBOURS.get(component, frozenset())))
        try:
            if component in self._visiting and component not in self._present:
                self._present.add(component)  # also if only a part of it arrives
                self._visiting[component].to(self._device)
            yield
        finally:
            self._send_away(but=self._staying)

    def let_stay(self, *components: str) -> None:
        """From now on let these visitors, and no others, stay after their own stage, for the next video."""
        self._staying = frozenset(components)
        self._send_away(but=self._staying)

    @property
    def has_evictable(self) -> bool:
        """Whether a visitor that was asked to stay is on the device."""
        return bool(self._present & self._staying)

    def evict(self) -> None:
        """Send every visitor away, also those that were asked to stay: their room is needed now."""
        self._send_away()

    def forget(self, component: str) -> None:
        """A component is let go of."""
        self._visiting.pop(component, None)
        self._present.discard(component)

    def close(self) -> None:
        """Delete the files that weights were streamed from; the components are of no use afterwards."""
        self._visiting.clear()
        self._present.clear()
        for folder in self._folders:
            folder.close()
        self._folders.clear()

    def _send_away(self, but: Collection[str] = ()) -> None:
        for name in self._present.difference(but):
            self._visiting[name].to("cpu")
            self._present.remove(name)

    def _stream(self, component: str, module: torch.nn.Module) -> None:
        """diffusers' group offload: one block a group, so that two are on the device with a stream."""
        group = self._profile.group
        stream = group.stream and self._device.type == "cuda"
        if stream and group.pinned:
            _round_pinned_memory_little()
        options = {
            "onload_device": self._device,
            "offload_device": torch.device("cpu"),
            "offload_type": f"{group.level}_level",
            "num_blocks_per_group": 1 if group.level == "block" else None,
            "use_stream": stream,
            "low_cpu_mem_usage": stream and not group.pinned,
            "offload_to_disk_path": self._disk_folder(component) if group.to_disk else None,
        }
        own = getattr(module, "enable_group_offload", None)
        if own is not None:  # a model of diffusers says itself what its blocks are
            own(**options)
        else:
            apply_group_offloading(module, **options)

    def _disk_folder(self, component: str) -> str:
        """A new folder: the library takes a file that it finds there for its own, whatever wrote it."""
        parent = cache_dir() / "offload"
        try:
            parent.mkdir(parents=True, exist_ok=True)
            folder = OwnFolder(f"own-{component}-", parent)
        except OSError as error:
            raise ConfigError(
                f"group.to_disk: {parent}: cannot be written: {error}; set HUNYUAN_LOCAL_CACHE_DIR to a folder on a "
                "disk that holds the weights"
            ) from error
        self._folders.append(folder)
        return str(folder.path)


def _round_pinned_memory_little() -> None:
    """Let page-locked copies above 1 MiB take their own size rather than the next power of two.

    That is up to twice the host memory. A setting of the process's allocator, which a user's own settings
    in the environment overrule; torch before 2.13 knows no such key, and then the copies are rounded.
    """
    if not any(os.environ.get(name) for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")):
        set_allocator("pinned_max_round_threshold_mb:1")
