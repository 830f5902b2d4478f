"""The names of the attention kernels, for ``attention_backend`` in a profile.

They are those of diffusers, without the leading underscore that some of them have, and of kernels that diffusers does
not call. diffusers' varlen kernels (for texts of different lengths) are not needed without a mask; kernels for other
hardware are not listed. ``torch_flash_3`` and ``torch_flash_4`` are torch's calls of the packages of ``flash_3`` and
``flash_4``.
"""

from __future__ import annotations

EXACT = (
    "native", "native_cudnn", "native_flash", "native_efficient", "flash", "flash_3", "flash_4", "torch_flash_3",
    "torch_flash_4", "xformers",
)  # fmt: skip
# These compute with queries and keys in int8, and some with values in float8; ``sage_3``, with all three in float4.
INEXACT = (
    "sage", "sage_qk_int8_pv_fp16_cuda", "sage_qk_int8_pv_fp16_triton", "sage_qk_int8_pv_fp8_cuda",
    "sage_qk_int8_pv_fp8_cuda_sm90", "sage_3",
)  # fmt: skip
IN_4_BITS = ("sage_3", "sage_blackwell_hub")
# These download a compiled kernel from the Hub, so they are used only if the user names them.
FROM_HUB = ("flash_hub", "flash_3_hub", "flash_4_hub", "sage_hub", "sage_blackwell_hub")
BACKENDS = (*EXACT, *INEXACT, *FROM_HUB)
# Those for which diffusers has ring attention, which merges partial results by their log-sum-exp.
RING = ("native_cudnn", "native_flash", "flash", "flash_hub", "flash_3_hub", "sage", "sage_hub")
