"""Where each component is: always on the device, there only for its stage, or streamed to it in pieces.

One object per loaded model. It places each component once after loading, and moves those that visit the device. The
planner estimates how much memory this takes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator

import accelerate
import torch
from diffusers.hooks import apply_group_offloading

from ...config import RuntimeProfile, cache_dir
from ...durable import OwnFolder
from ...errors import ConfigError
from ..diffusers_private import is_in_4_bits, is_in_8_bits
from .host_copies import Visitor
from .streamed import StreamedComponent

# bitsandbytes quantizes weights to 4 or 8 bits when they reach the GPU, so they must be loaded there.
_QUANTIZED_ON_DEVICE = ("nf4", "llm-int8")

# Components that ``let_stay`` may keep on the device while another one works. The transformer leaves for the large
# text encoder, because together they do not fit on cards that need offload.
_NEIGHBOURS = {
    "text_encoder": frozenset({"text_encoder_2"}),
    "text_encoder_2": frozenset({"text_encoder"}),
    "vae": frozenset({"transformer"}),
}


class Placement:
    """The placement of one model's components, as its profile says.

    Args:
        profile: its ``device``, ``offload``, ``placement`` and ``group`` decide. With ``device: cpu`` every offload
            mode runs too, moving weights within main memory: this saves nothing but runs the same code.
    """

    def __init__(self, profile: RuntimeProfile):
        self._profile = profile
        self._device = torch.device(profile.device)
        self._visiting: dict[str, Visitor | StreamedComponent] = {}
        self._present: set[str] = set()
        self._staying: frozenset[str] = frozenset()
        self._folders: list[OwnFolder] = []

    def device_of(self, component: str) -> torch.device:
        """Where a component computes; its inputs must be there."""
        return torch.device("cpu") if self._profile.residence(component) == "cpu" else self._device

    def loading_device(self, component: str) -> torch.device:
        """Where to read a component's weights to: directly to the device if they stay there."""
        method = self._profile.quantization if component == "transformer" else None
        if method == "fp8":  # cast after reading; in full precision it might not fit on the device
            return torch.device("cpu")
        if method in _QUANTIZED_ON_DEVICE or self._profile.residence(component) == "device":
            return self._device
        return torch.device("cpu")

    def place(self, component: str, module: torch.nn.Module) -> None:
        """Move a component to its place, or install the hooks that move it when needed.

        Raises:
            torch.OutOfMemoryError: the component does not fit on the device.
        """
        residence = self._profile.residence(component)
        recast = component == "transformer" and self._profile.quantization == "fp8"
        if residence == "device":
            if not is_in_8_bits(module):
                module.to(self._device)
        elif residence == "visit":
            # bitsandbytes' 8-bit weights cannot leave the GPU.
            if not is_in_8_bits(module):
                self._visiting[component] = Visitor(module, copied_back=is_in_4_bits(module), recast=recast)
        elif residence == "group":
            # Streaming moves bitsandbytes' 4-bit weights but not their scales, so the weights must stay on the GPU.
            if not is_in_4_bits(module):
                module.to("cpu")
            self._visiting[component] = self._stream(component, module, recast)
        elif residence == "sequential":
            # The per-layer hooks do not move buffers of the component itself.
            has_parameters = any(True for _ in module.parameters(recurse=False))
            accelerate.cpu_offload(module, self._device, offload_buffers=has_parameters)

    @contextlib.contextmanager
    def active(self, component: str) -> Iterator[None]:
        """Keep a component on the device inside, and move other visitors away; afterwards, all visitors leave.

        Components of ``let_stay`` stay on the device afterwards, and inside if there is room for both.
        """
        self._send_away(but={component} | (self._staying & _NEIGHBOURS.get(component, frozenset())))
        try:
            if component in self._visiting and component not in self._present:
                self._present.add(component)  # before the move, which can fail halfway
                self._visiting[component].arrive(self._device)
            yield
        finally:
            self._send_away(but=self._staying)

    def let_stay(self, *components: str) -> None:
        """Keep exactly these components on the device after their stage, for the next video, if they visit it whole."""
        self._staying = frozenset(name for name in components if self._profile.residence(name) == "visit")
        self._send_away(but=self._staying)

    @property
    def has_evictable(self) -> bool:
        """Whether a visitor kept by ``let_stay`` is on the device."""
        return bool(self._present & self._staying)

    def evict(self) -> None:
        """Move all visitors away, including those of ``let_stay``, to free memory."""
        self._send_away()

    def forget(self, component: str) -> None:
        """Stop tracking a component that is about to be released."""
        self._visiting.pop(component, None)
        self._present.discard(component)

    def close(self) -> None:
        """Delete the files that weights are streamed from; the components cannot be used afterwards."""
        self._visiting.clear()
        self._present.clear()
        for folder in self._folders:
            folder.close()
        self._folders.clear()

    def _send_away(self, but: Collection[str] = ()) -> None:
        for name in self._present.difference(but):
            self._visiting[name].leave()
            self._present.remove(name)

    def _stream(self, component: str, module: torch.nn.Module, recast: bool) -> StreamedComponent:
        """Set up diffusers' group offload, one block per group; with a stream, up to three are on the device."""
        group = self._profile.group
        stream = group.stream and self._device.type == "cuda"
        options = {
            "onload_device": self._device,
            "offload_device": torch.device("cpu"),
            "offload_type": f"{group.level}_level",
            "num_blocks_per_group": 1 if group.level == "block" else None,
            "use_stream": stream,
            "record_stream": stream,
            "low_cpu_mem_usage": stream and not group.pinned,
            "offload_to_disk_path": self._disk_folder(component) if group.to_disk else None,
        }
        own = getattr(module, "enable_group_offload", None)
        if own is not None:  # diffusers models know their own blocks
            own(**options)
        else:
            apply_group_offloading(module, **options)
        return StreamedComponent(module, torch.cuda.Event if stream else None, recast=recast)

    def _disk_folder(self, component: str) -> str:
        """Create a new folder, because diffusers uses any matching files it finds without checking them."""
        parent = cache_dir() / "offload"
        try:
            parent.mkdir(parents=True, exist_ok=True)
            folder = OwnFolder(f"own-{component}-", parent)
        except OSError as error:
            raise ConfigError(
                f"group.to_disk: {parent}: cannot be written: {error}; set HUNYUAN_LOCAL_CACHE_DIR to a folder on a "
                "disk with room for the weights"
            ) from error
        self._folders.append(folder)
        return str(folder.path)
