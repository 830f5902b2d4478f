"""The classes of diffusers that ours derive from, with types: type checkers do not read diffusers here."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    import torch
    from diffusers.models.attention_dispatch import AttentionBackendName
    from diffusers.models.attention_processor import Attention

    class HunyuanVideoAttnProcessor2_0:
        _attention_backend: AttentionBackendName | None
        _parallel_config: Any

        def __call__(
            self,
            attn: Attention,
            hidden_states: torch.Tensor,
            encoder_hidden_states: torch.Tensor | None = None,
            attention_mask: torch.Tensor | None = None,
            image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
        ) -> tuple[torch.Tensor, torch.Tensor | None]: ...

    class ModelHook:
        fn_ref: Any

        def post_forward(self, module: torch.nn.Module, output: Any) -> Any: ...

        def reset_state(self, module: torch.nn.Module) -> torch.nn.Module: ...

else:
    from diffusers.hooks import ModelHook
    from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoAttnProcessor2_0

__all__ = ["HunyuanVideoAttnProcessor2_0", "ModelHook"]
