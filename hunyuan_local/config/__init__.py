"""Models and runtime profiles as data: finds, reads and validates the YAML files of ``configs/``.

A model config names the weights, the prompt template and the defaults. A runtime profile states where and in which
precision they run. This package neither imports torch nor reads weights.
"""

from .files import (
    cache_names,
    load_answer_phrases,
    load_cache,
    load_model_config,
    load_profile,
    load_rewrite_template,
    model_names,
    presets,
    profile_names,
)
from .models import GenerationDefaults, LatentPreview, Licence, LoraConfig, ModelConfig, PromptTemplate
from .places import GIB, PACKAGE_DIR, cache_dir, configs_dir, is_offline, state_dir
from .profiles import (
    CacheConfig,
    ComponentDtypes,
    ComponentPlacement,
    ContextParallel,
    FirstBlockCache,
    GroupOffload,
    MagCache,
    OutOfMemoryConfig,
    Quantization,
    RuntimeProfile,
    TaylorSeerCache,
)
from .rewriting import AnswerPhrases, RewriteConfig, RewriteTemplate
from .safety import SafetyConfig

__all__ = [
    "GIB",
    "PACKAGE_DIR",
    "AnswerPhrases",
    "CacheConfig",
    "ComponentDtypes",
    "ComponentPlacement",
    "ContextParallel",
    "FirstBlockCache",
    "GenerationDefaults",
    "GroupOffload",
    "LatentPreview",
    "Licence",
    "LoraConfig",
    "MagCache",
    "ModelConfig",
    "OutOfMemoryConfig",
    "PromptTemplate",
    "Quantization",
    "RewriteConfig",
    "RewriteTemplate",
    "RuntimeProfile",
    "SafetyConfig",
    "TaylorSeerCache",
    "cache_dir",
    "cache_names",
    "configs_dir",
    "is_offline",
    "load_answer_phrases",
    "load_cache",
    "load_model_config",
    "load_profile",
    "load_rewrite_template",
    "model_names",
    "presets",
    "profile_names",
    "state_dir",
]
