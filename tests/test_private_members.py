"""Undocumented library members that we use: they still exist, and one module per library uses them.

Names are taken from the libraries themselves, not from ours, so that each that an upgrade takes away fails by its name.
"""

from __future__ import annotations

import ast
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import hunyuan_local

PACKAGE = Path(hunyuan_local.__file__).parent
OF_DIFFUSERS = (
    "diffusers.hooks:HookRegistry.check_if_exists_or_initialize",
    "diffusers.hooks:HookRegistry.register_hook",
    "diffusers.hooks:ModelHook._is_stateful",
    "diffusers.hooks:ModelHook.post_forward",
    "diffusers.hooks:ModelHook.reset_state",
    "diffusers.hooks:apply_context_parallel",
    "diffusers.hooks.first_block_cache:FBCHeadBlockHook",
    "diffusers.hooks.first_block_cache:FBCHeadBlockHook._should_compute_remaining_blocks",
    "diffusers.hooks.group_offloading:ModuleGroup.offload_",
    "diffusers.hooks.group_offloading:ModuleGroup.onload_",
    "diffusers.hooks.group_offloading:_GROUP_OFFLOADING",
    "diffusers.loaders.single_file_utils:convert_hunyuan_video_transformer_to_diffusers",
    "diffusers.models._modeling_parallel:ContextParallelInput",
    "diffusers.models._modeling_parallel:ParallelConfig.setup",
    "diffusers.models.attention_dispatch:AttentionBackendName",
    "diffusers.models.attention_dispatch:TemplatedRingAnythingAttention.apply",
    "diffusers.models.attention_dispatch:_AttentionBackendRegistry._is_context_parallel_available",
    "diffusers.models.attention_dispatch:attention_backend",
    "diffusers.models.attention_dispatch:dispatch_attention_fn",
    "diffusers.models.attention_dispatch:gather_size_by_comm",
    "diffusers.models.autoencoders.autoencoder_kl_hunyuan_video:HunyuanVideoCausalConv3d",
    "diffusers.models.autoencoders.autoencoder_kl_hunyuan_video:HunyuanVideoUpsampleCausal3D",
    "diffusers.models.model_loading_utils:load_gguf_checkpoint",
    "diffusers.models.normalization:RMSNorm",
    "diffusers.models.transformers.transformer_hunyuan_video:HunyuanVideoAttnProcessor2_0._attention_backend",
    "diffusers.models.transformers.transformer_hunyuan_video:HunyuanVideoAttnProcessor2_0._parallel_config",
    "diffusers.models.transformers.transformer_hunyuan_video:HunyuanVideoSingleTransformerBlock",
    "diffusers.models.transformers.transformer_hunyuan_video:HunyuanVideoTokenReplaceSingleTransformerBlock",
    "diffusers.models.transformers.transformer_hunyuan_video:HunyuanVideoTokenReplaceTransformerBlock",
    "diffusers.models.transformers.transformer_hunyuan_video:HunyuanVideoTransformerBlock",
    "diffusers.quantizers.gguf.utils:dequantize_gguf_tensor",
    "diffusers.quantizers.quantization_config:QuantizationConfigMixin",
    "diffusers.utils:SAFETENSORS_WEIGHTS_NAME",
    "diffusers.utils:SAFE_WEIGHTS_INDEX_NAME",
)
OF_TORCH = (
    "torch._C:_accelerator_setAllocatorSettings",
    "torch:Tensor._version",
    "torch.nn:Conv3d._conv_forward",
    "torch.utils:swap_tensors",
)
OF_THE_HUB = (
    "huggingface_hub.constants:DEFAULT_REVISION",
    "huggingface_hub.constants:ENDPOINT",
    "huggingface_hub.constants:HF_HOME",
    "huggingface_hub.constants:HF_HUB_CACHE",
    "huggingface_hub.hf_api:RepoSibling",
)
# Text in a library's source, for attributes of instances that only weights could create.
IN_SOURCES = (
    ("diffusers.quantizers.bitsandbytes.bnb_quantizer", "model.is_loaded_in_4bit = True"),
    ("diffusers.quantizers.bitsandbytes.bnb_quantizer", "model.is_loaded_in_8bit = True"),
    ("diffusers.hooks.hooks", "fn_ref.original_forward = forward"),
    ("diffusers.hooks.hooks", 'hasattr(hook, "new_forward")'),
    ("diffusers.hooks.hooks", "self._fn_refs.append(fn_ref)"),
    ("diffusers.hooks.hooks", "fn_ref.forward = forward"),
    ("accelerate.hooks", "module._old_forward(*args, **kwargs)"),
    ("diffusers.hooks.hooks", "module._diffusers_hook = "),
    ("diffusers.hooks.group_offloading", "self.group.onload_()"),
    ("diffusers.hooks.group_offloading", "self.group.offload_()"),
    ("diffusers.hooks.group_offloading", "self.next_group.onload_()"),
    ("diffusers.models.autoencoders.autoencoder_kl_hunyuan_video", "self.time_causal_padding = ("),
    ("diffusers.models.autoencoders.autoencoder_kl_hunyuan_video", "self.upsample_factor = upsample_factor"),
    ("diffusers.hooks.first_block_cache", "self.head_block_residual: torch.Tensor = None"),
    ("diffusers.hooks.first_block_cache", "should_compute = self._should_compute_remaining_blocks("),
    ("diffusers.configuration_utils", "_name_or_path"),
    ("torch.nn.modules.module", 'super().__setattr__("_parameters", {})'),
    ("torch.nn.modules.module", 'super().__setattr__("_buffers", {})'),
    ("torch.utils._python_dispatch", "__tensor_flatten__"),
)
# Modules in which private members may occur.
PRIVATE = {
    "pipeline/diffusers_private.py",
    "pipeline/torch_private.py",
    "ui/gradio_private.py",
    "weights/hub_private.py",
}
DOCUMENTED = {"_exit", "_asdict", "_fields", "_make", "_replace", "_value_"}  # os, named tuples, enumerations
UNDOCUMENTED = re.compile(
    r"torch\.(\w+\.)*_\w+|diffusers\.(models|loaders|quantizers|hooks\.(?!apply_|\w+Config$))|gradio\.|"
    r"huggingface_hub\.(constants|hf_api|file_download|_\w+)"
)


@pytest.mark.parametrize("name", (*OF_DIFFUSERS, *OF_TORCH, *OF_THE_HUB))
def test_a_member_is_there(name: str) -> None:
    pkgutil.resolve_name(name)


@pytest.mark.parametrize(("module", "text"), IN_SOURCES)
def test_a_library_sets_what_is_read(module: str, text: str) -> None:
    assert text in inspect.getsource(pkgutil.resolve_name(module)), f"{module}: {text}"


@pytest.mark.parametrize("name", ["_scaled_dot_product_flash_attention_for_cpu", "mkldnn_convolution", "gelu.out"])
def test_an_operator_of_torch_is_there(name: str) -> None:

    assert pkgutil.resolve_name(f"torch:ops.aten.{name}")


def undocumented_uses(path: Path) -> list[str]:
    """Line and text of each use of a private name or an undocumented module of another library."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                continue
            case ast.Attribute(attr=name) if re.match("_[a-zA-Z]", name) and name not in DOCUMENTED:
                found.append(f"{node.lineno}: {ast.unparse(node)}")
            case ast.ImportFrom(level=0, module=str(module)):
                full = [f"{module}.{alias.name}" for alias in node.names]
                found += [f"{node.lineno}: {name}" for name in full if UNDOCUMENTED.match(name)]
    return found


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(PACKAGE.rglob("*.py")) if path.relative_to(PACKAGE).as_posix() not in PRIVATE],
    ids=lambda path: path.relative_to(PACKAGE).as_posix(),
)
def test_a_file_uses_no_private_member_of_a_library(path: Path) -> None:
    assert undocumented_uses(path) == []


@pytest.mark.parametrize("name", sorted(PRIVATE))
def test_a_private_use_would_be_seen(name: str) -> None:
    assert undocumented_uses(PACKAGE / name)
