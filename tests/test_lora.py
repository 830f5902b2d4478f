"""LoRAs: every published spelling makes the change that the file describes, or is refused with a reason."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import gguf
import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel
from diffusers.loaders.single_file_utils import convert_hunyuan_video_transformer_to_diffusers
from diffusers.quantizers.gguf.utils import GGUFLinear, GGUFParameter, dequantize_gguf_tensor
from local_hub import LocalHub, tiny_files
from lora_files import ATTENTION, LAYERS, RANK, STYLES, LoraFile, make_lora
from safetensors.torch import save_file

from hunyuan_local.config import LoraConfig, load_model_config
from hunyuan_local.errors import ConfigError, HunyuanLocalError, ModelLoadError
from hunyuan_local.pipeline.attention.mask_free import drop_padding
from hunyuan_local.pipeline.attention.rotary import keep_rotary_tables
from hunyuan_local.pipeline.loading.lora_layer import rows_in_order
from hunyuan_local.pipeline.loading.lora_loader import LoadedLora, add_loras, weighted_modules
from hunyuan_local.weights.layer_names import original_name, spellings
from hunyuan_local.weights.lora_keys import find_layer, kind_of
from hunyuan_local.weights.single_file import find_file, sha256_of

Transformer = HunyuanVideoTransformer3DModel
CPU = torch.device("cpu")
DUAL, SINGLE = "transformer_blocks.0", "single_transformer_blocks.0"


def load(dtype: torch.dtype = torch.float32) -> Transformer:
    folder = Path(load_model_config("tiny").source) / "transformer"
    return Transformer.from_pretrained(folder, dtype=dtype).eval().requires_grad_(False)


@pytest.fixture
def transformer(loads_model: None) -> Transformer:
    return load()


@pytest.fixture(scope="module")
def untouched(loads_model: None) -> Transformer:
    """Read-only."""
    return load()


def run(transformer: Transformer) -> torch.Tensor:
    """One forward pass on fixed inputs: 3 x 10 x 18 latents, 20 text tokens of which 7 are padding."""
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        return transformer(
            hidden_states=torch.randn(1, 16, 3, 10, 18, generator=random),
            timestep=torch.tensor([500]),
            encoder_hidden_states=torch.randn(1, 20, 96, generator=random),
            encoder_attention_mask=torch.tensor([[1] * 13 + [0] * 7]),
            pooled_projections=torch.randn(1, 96, generator=random),
            guidance=torch.tensor([6000.0]),
            return_dict=False,
        )[0]


def merged_by_hand(*files: tuple[LoraFile, float], base: Callable[[], Transformer] = load) -> Transformer:
    """W + scale * alpha / r * B @ A, and the biases likewise."""
    transformer = base()
    for file, scale in files:
        for name, delta in file.weights.items():
            transformer.get_submodule(name).weight.data += scale * delta
        for name, delta in file.biases.items():
            transformer.get_submodule(name).bias.data += scale * delta
    return transformer


def add(transformer: Transformer, path: Path, scale: float = 1.0) -> LoadedLora:
    return add_loras(transformer, [LoraConfig(path=str(path), scale=scale)])[0]


def assert_same_output(found: Transformer, expected: Transformer) -> None:
    torch.testing.assert_close(run(found), run(expected), rtol=1e-4, atol=1e-5)


def weights(transformer: Transformer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in transformer.state_dict().items()}


# --- What is added ---


@pytest.mark.parametrize("style", STYLES)
def test_a_lora_of_any_spelling_gives_the_output_of_weights_merged_by_hand(
    style: str, transformer: Transformer, tmp_path: Path
) -> None:
    file = make_lora(tmp_path / "a.safetensors", style, alpha=2.0)
    add(transformer, file.path, 0.7)
    assert_same_output(transformer, merged_by_hand((file, 0.7)))


def test_the_loras_of_these_tests_do_change_the_output(untouched: Transformer, tmp_path: Path) -> None:
    file = make_lora(tmp_path / "a.safetensors")
    difference = run(merged_by_hand((file, 1.0))) - run(untouched)
    assert difference.abs().max() > 0.1


def test_the_scales_of_two_loras_add_up(transformer: Transformer, tmp_path: Path) -> None:
    first = make_lora(tmp_path / "a.safetensors", "diffusers", seed=1)
    second = make_lora(tmp_path / "b.safetensors", "kohya", LAYERS[2:6], alpha=1.0, seed=2)
    add_loras(transformer, [LoraConfig(path=str(first.path)), LoraConfig(path=str(second.path), scale=-0.5)])
    assert_same_output(transformer, merged_by_hand((first, 1.0), (second, -0.5)))


def test_scale_0_changes_no_weight(transformer: Transformer, untouched: Transformer, tmp_path: Path) -> None:
    file = make_lora(tmp_path / "a.safetensors", "comfy", biases=True)
    add(transformer, file.path, 0.0)
    torch.testing.assert_close(weights(transformer), weights(untouched), rtol=0, atol=0)


def test_changes_of_biases_are_added(transformer: Transformer, tmp_path: Path) -> None:
    file = make_lora(tmp_path / "a.safetensors", "comfy", biases=True)
    add(transformer, file.path, 0.5)
    assert_same_output(transformer, merged_by_hand((file, 0.5)))


def test_a_file_in_8_bit_numbers_is_read(transformer: Transformer, tmp_path: Path) -> None:
    file = make_lora(tmp_path / "a.safetensors", "comfy", dtype=torch.float8_e4m3fn)
    add(transformer, file.path)
    assert_same_output(transformer, merged_by_hand((file, 1.0)))


@pytest.mark.parametrize(
    ("settings", "factor"),
    [
        ({"transformer.lora_alpha": 8}, 2.0),
        ({"transformer.lora_alpha": 8, "transformer.use_rslora": True}, 4.0),
        ({"transformer.lora_alpha": 8, "transformer.alpha_pattern": {"text_embedder.linear_2": 1}}, 0.25),
        ({"transformer.lora_alpha": 8, "transformer.alpha_pattern": {"linear_1": 1}}, 2.0),
        ({}, 1.0),
    ],
)
def test_the_settings_that_diffusers_writes_are_heeded(
    settings: dict, factor: float, transformer: Transformer, untouched: Transformer, tmp_path: Path
) -> None:
    name = "time_text_embed.text_embedder.linear_2"
    down, up = torch.randn(RANK, 128), torch.randn(128, RANK)
    tensors = {f"transformer.{name}.lora_A.weight": down, f"transformer.{name}.lora_B.weight": up}
    save_file(tensors, tmp_path / "a.safetensors", {"lora_adapter_metadata": json.dumps(settings)})
    add(transformer, tmp_path / "a.safetensors")
    expected = untouched.get_submodule(name).weight + factor * up @ down
    torch.testing.assert_close(transformer.get_submodule(name).weight, expected)


@pytest.mark.usefixtures("loads_model")
def test_the_precision_of_the_weights_stays(tmp_path: Path) -> None:
    transformer = load(torch.bfloat16)
    add(transformer, make_lora(tmp_path / "a.safetensors").path)
    assert transformer.proj_out.weight.dtype == torch.bfloat16


def test_what_has_been_added_is_reported(transformer: Transformer, tmp_path: Path) -> None:
    file = make_lora(tmp_path / "a.safetensors", "tencent")
    sha256 = hashlib.sha256(file.path.read_bytes()).hexdigest()
    hashes = {str(file.path): sha256}
    assert add(transformer, file.path, 0.5) == LoadedLora(str(file.path), file.path, 0.5, hashes, len(file.weights), ())


# --- What is not used ---


def test_keys_of_other_parts_are_counted_in_a_note(transformer: Transformer, tmp_path: Path) -> None:
    more = {f"text_encoder.{name}.lora_A.weight": torch.zeros(1, 1) for name in ("a", "b")}
    file = make_lora(tmp_path / "a.safetensors", more=more)
    (note,) = add(transformer, file.path).notes
    assert note.startswith(f"2 of the {len(file.keys)} keys of a.safetensors are not used, such as text_encoder.a")


@pytest.mark.usefixtures("loads_model")
def test_a_change_too_weak_for_the_precision_is_noted(tmp_path: Path) -> None:
    file = make_lora(tmp_path / "a.safetensors", size=1e-5)
    assert "rounding" in "".join(add(load(torch.bfloat16), file.path).notes)


@pytest.mark.usefixtures("loads_model")
def test_a_change_of_a_usual_size_is_kept_in_bfloat16(tmp_path: Path) -> None:
    assert add(load(torch.bfloat16), make_lora(tmp_path / "a.safetensors", size=1e-3).path).notes == ()


# --- What is refused ---


def refusals(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Files that cannot be added, and words that the error must contain."""
    factors = {"lora_A.weight": torch.ones(RANK, 128), "lora_B.weight": torch.ones(64, RANK)}

    def write(name: str, **tensors: torch.Tensor) -> Path:
        save_file({f"transformer.proj_out.{key.replace('__', '.')}": value for key, value in tensors.items()},
                  folder / name)  # fmt: skip
        return folder / name

    foreign = folder / "foreign.safetensors"
    save_file({"diffusion_model.blocks.0.self_attn.q.lora_A.weight": torch.ones(4, 4)}, foreign)
    yield (
        foreign,
        ["none of the 1 keys", "blocks.0.self_attn.q", "double_blocks.0.img_attn.qkv", "made for HunyuanVideo"],
    )
    wide = {"lora_A__weight": torch.ones(RANK, 3072), "lora_B__weight": factors["lora_B.weight"]}
    yield write("wide.safetensors", **wide), ["proj_out.lora_A", "[4, 3072]", "[4, 128]", "another model"]
    tall = {"lora_A__weight": factors["lora_A.weight"], "lora_B__weight": torch.ones(65, RANK)}
    yield write("tall.safetensors", **tall), ["proj_out.lora_B", "[65, 4]", "[64, 4]", "another model"]
    yield write("half.safetensors", lora_A__weight=factors["lora_A.weight"]), ["proj_out.lora_A", "other half"]
    broken = {"lora_A__weight": torch.full((RANK, 128), torch.nan), "lora_B__weight": factors["lora_B.weight"]}
    yield write("broken.safetensors", **broken), ["NaN", "proj_out.lora_A"]
    whole = {key.replace(".", "__"): value for key, value in factors.items()}
    yield write("dora.safetensors", **whole, lora_magnitude_vector=torch.ones(64)), ["DoRA", "plain LoRA"]
    (folder / "text.safetensors").write_text("not tensors")
    yield folder / "text.safetensors", ["cannot be read as a safetensors file"]


def test_a_file_that_cannot_be_added_is_refused_by_name(transformer: Transformer, tmp_path: Path) -> None:
    for file, words in refusals(tmp_path):
        with pytest.raises(ModelLoadError) as caught:
            add(transformer, file)
        assert [word for word in (str(file), *words) if word not in str(caught.value)] == []


def test_a_refused_file_leaves_the_weights_as_they_were(
    transformer: Transformer, untouched: Transformer, tmp_path: Path
) -> None:
    good = make_lora(tmp_path / "good.safetensors").path
    bad = next(refusals(tmp_path))[0]
    with pytest.raises(ModelLoadError):
        add_loras(transformer, [LoraConfig(path=str(good)), LoraConfig(path=str(bad))])
    torch.testing.assert_close(weights(transformer), weights(untouched), rtol=0, atol=0)


@pytest.mark.parametrize("path", ["nowhere.safetensors", "a/b", "a/b/c.bin", "./a/b/c.safetensors", ""])
def test_a_path_of_nothing_is_refused(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"no such file|a folder"):
        find_file("lora", path, ".safetensors")


# --- Names ---


def test_every_layer_is_where_diffusers_own_conversion_puts_it() -> None:
    # diffusers converts whole checkpoints of the real model's width; here each row of a weight is one number.
    settings = json.loads((Path(load_model_config("tiny").source) / "transformer" / "config.json").read_text())
    with torch.device("meta"):
        model = Transformer.from_config(settings | {"num_attention_heads": 24, "attention_head_dim": 128})
    heights = {name: len(module.weight) for name, module in weighted_modules(model).items()}
    known = spellings(heights)
    found, checkpoint, first = {}, {}, 0
    for original in {original_name(name) for name in heights}:
        layers = known[original]
        rows = torch.arange(first, first + sum(heights[layer] for layer in layers)).float()[:, None]
        checkpoint[f"{original}.weight"] = rows
        order = rows_in_order(original, len(rows))
        parts = (rows if order is None else rows[order]).split([heights[layer] for layer in layers])
        found |= {f"{layer}.weight": part for layer, part in zip(layers, parts, strict=True)}
        first += len(rows)
    converted = convert_hunyuan_video_transformer_to_diffusers(checkpoint)
    torch.testing.assert_close(found, converted, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("key", "layer", "kind"),
    [
        ("diffusion_model.double_blocks.0.img_attn.proj.lora_down.weight", f"{DUAL}.attn.to_out.0", "down"),
        ("diffusion_model.double_blocks.0.img_mlp.2.diff_b", f"{DUAL}.ff.net.2", "diff_bias"),
        ("diffusion_model.double_blocks.0.img_attn.norm.query_norm.diff", f"{DUAL}.attn.norm_q", "diff"),
        ("diffusion_model.double_blocks.0.txt_attn.norm.key_norm.diff", f"{DUAL}.attn.norm_added_k", "diff"),
        ("lora_unet_single_blocks_0_q_norm.w_norm", f"{SINGLE}.attn.norm_q", "diff"),
        ("diffusion_model.img_in.proj.lora_up.weight", "x_embedder.proj", "up"),
        ("base_model.model.transformer_blocks.0.attn.to_q.lora_A.weight", f"{DUAL}.attn.to_q", "down"),
        ("transformer._orig_mod.transformer_blocks.0.attn.to_q.lora_B.mine.weight", f"{DUAL}.attn.to_q", "up"),
        ("lycoris_transformer_blocks_0_attn_to_q.lokr_w1", f"{DUAL}.attn.to_q", "lokr_w1"),
        ("transformer_blocks.0.attn.to_q.lora_B.mine.bias", f"{DUAL}.attn.to_q", "up_bias"),
        ("transformer_blocks.0.attn.to_q.lora_A", f"{DUAL}.attn.to_q", "down"),
        ("diffusion_model.single_blocks.0.modulation.lin.lora_up.weight", f"{SINGLE}.norm.linear", "up"),
        ("diffusion_model.time_in.out_layer.alpha", "time_text_embed.timestep_embedder.linear_2", "alpha"),
        ("lora_unet_double_blocks_0_txt_attn_proj.lora_up.weight", f"{DUAL}.attn.to_add_out", "up"),
        ("transformer.single_transformer_blocks.0.proj_out.lora_A.default.weight", f"{SINGLE}.proj_out", "down"),
        ("transformer_blocks.0.attn.add_k_proj.lora_B.weight", f"{DUAL}.attn.add_k_proj", "up"),
    ],
)  # fmt: skip
def test_a_published_key_is_understood(key: str, layer: str, kind: str, untouched: Transformer) -> None:
    known = spellings(weighted_modules(untouched))
    spelling, ending = find_layer(key, known) or ("", "")
    assert (known[spelling], (kind_of(ending) or ("",))[0]) == ([layer], kind)


# --- With quantized layers ---


def quantized() -> Transformer:
    """The blocks' layers in GGUF's 8 bits, as diffusers stores them."""
    transformer = load()
    kind = gguf.GGMLQuantizationType.Q8_0
    for name, module in list(transformer.named_modules()):
        if isinstance(module, torch.nn.Linear) and "blocks" in name:
            layer = GGUFLinear(
                module.in_features, module.out_features, True, compute_dtype=torch.float32, device="meta"
            )
            stored = torch.from_numpy(gguf.quantize(module.weight.numpy(), kind))
            layer.weight, layer.bias = GGUFParameter(stored, quant_type=kind), module.bias
            transformer.set_submodule(name, layer)
    return transformer


def dequantized() -> Transformer:
    """The same values in plain layers."""
    transformer = quantized()
    for name, module in list(transformer.named_modules()):
        if isinstance(module, GGUFLinear):
            layer = torch.nn.Linear(module.in_features, module.out_features).requires_grad_(False)
            layer.weight.data = dequantize_gguf_tensor(module.weight).as_subclass(torch.Tensor).float()
            layer.bias.data = module.bias.data
            transformer.set_submodule(name, layer)
    return transformer


def without_mask(transformer: Transformer) -> None:
    drop_padding(transformer, "native")
    keep_rotary_tables(transformer)


def grouped(transformer: Transformer) -> None:
    transformer.enable_group_offload(CPU, CPU, offload_type="block_level", num_blocks_per_group=1)


def grouped_by_leaf(transformer: Transformer) -> None:
    transformer.enable_group_offload(CPU, CPU, offload_type="leaf_level")


def compiled(transformer: Transformer) -> None:
    transformer.single_transformer_blocks[3].compile(backend="eager", dynamic=True)


@pytest.mark.parametrize("prepare", [without_mask, grouped, grouped_by_leaf, compiled])
@pytest.mark.usefixtures("loads_model")
def test_a_lora_next_to_quantised_layers_gives_the_output_of_weights_merged_by_hand(
    prepare: Callable[[Transformer], None], tmp_path: Path
) -> None:
    first = make_lora(tmp_path / "a.safetensors", "comfy", alpha=2.0, biases=True)
    second = make_lora(tmp_path / "b.safetensors", "diffusers", ATTENTION, seed=3)
    transformer = quantized()
    add_loras(transformer, [LoraConfig(path=str(first.path), scale=0.7), LoraConfig(path=str(second.path))])
    prepare(transformer)
    assert_same_output(transformer, merged_by_hand((first, 0.7), (second, 1.0), base=dequantized))


@pytest.mark.usefixtures("loads_model")
def test_scale_0_puts_nothing_beside_quantised_layers(tmp_path: Path) -> None:
    transformer = quantized()
    add(transformer, make_lora(tmp_path / "a.safetensors").path, 0.0)
    assert [name for name, module in transformer.named_modules() if hasattr(module, "lora_A")] == []


def test_a_merged_lora_leaves_no_layer_behind(transformer: Transformer, untouched: Transformer, tmp_path: Path) -> None:
    add(transformer, make_lora(tmp_path / "a.safetensors").path)
    assert [str(type(m)) for m in transformer.modules()] == [str(type(m)) for m in untouched.modules()]


@pytest.mark.usefixtures("loads_model")
def test_a_quantised_transformer_needs_peft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"hunyuan-local\[lora\].*peft is not installed"):
        add(quantized(), make_lora(tmp_path / "a.safetensors").path)


# --- Files of the Hub ---

PLACE = "someone/tiny/styles/pixel.safetensors"


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    return make_lora(tmp_path / "made.safetensors").path.read_bytes()


def hub_with(content: bytes, **faults: object) -> LocalHub:
    return LocalHub(files=tiny_files() | {"styles/pixel.safetensors": content}, **faults)


@pytest.mark.usefixtures("online")
def test_a_lora_of_the_hub_is_fetched(content: bytes, tmp_path: Path) -> None:
    with hub_with(content) as hub:
        found = find_file("lora", PLACE, ".safetensors", hub.at(tmp_path / "hub"))
    assert sha256_of(found) == hashlib.sha256(content).hexdigest()


@pytest.mark.usefixtures("online")
def test_a_lora_in_the_cache_is_used_without_asking_the_hub(content: bytes, tmp_path: Path) -> None:
    with hub_with(content) as hub:
        first = find_file("lora", PLACE, ".safetensors", hub.at(tmp_path / "hub"))
        hub.calls.clear()
        assert (find_file("lora", PLACE, ".safetensors", hub.at(tmp_path / "hub")), hub.calls) == (first, [])


def test_offline_nothing_is_asked_for(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with hub_with(content) as hub:
        with pytest.raises(ModelLoadError, match="HF_HUB_OFFLINE"):
            find_file("lora", PLACE, ".safetensors", hub.at(tmp_path / "hub"))
        assert hub.calls == []


@pytest.mark.usefixtures("online")
@pytest.mark.parametrize(
    ("path", "faults", "error", "words"),
    [
        ("someone/else/a.safetensors", {}, ConfigError, "no Hub repository someone/else"),
        ("someone/tiny/a.safetensors", {}, ConfigError, "someone/tiny has no file a.safetensors"),
        ("some one/tiny/a.safetensors", {}, ConfigError, "is not a valid Hub id"),
        (PLACE, {"refuse": (403, "GatedRepo")}, ModelLoadError, "login"),
    ],
)
def test_what_the_hub_does_not_give_is_reported(
    path: str, faults: dict, error: type[HunyuanLocalError], words: str, content: bytes, tmp_path: Path
) -> None:
    with hub_with(content, **faults) as hub, pytest.raises(error, match=words):
        find_file("lora", path, ".safetensors", hub.at(tmp_path / "hub"))


@pytest.mark.usefixtures("online")
def test_a_hub_out_of_reach_is_reported(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client's pause between its attempts
    with contextlib.ExitStack() as stack:
        hub = stack.enter_context(hub_with(content)).at(tmp_path / "hub")
    with pytest.raises(ModelLoadError, match="again later"):
        find_file("lora", PLACE, ".safetensors", hub)
