#!/usr/bin/env python3
"""Ten minutes on an H200: measurements that decide the next work on speed. Random weights, no disk, no network.

    python3 ten_minutes.py all            # on the machine with the GPU, from the repository's root; JSON and a table under $OUT
    python3 ten_minutes.py all --small    # dry run on a CPU, seconds

Each phase runs in a separate process with a time limit, so that a failure or a hang affects only that phase. The most
important phases come first; phases that do not fit in the time are skipped.
"""
from __future__ import annotations

import json, os, re, subprocess, sys, tempfile, time
from pathlib import Path

ROOT = Path(os.environ.get("REPO", ".")).resolve()
OUT = Path(os.environ.get("OUT", "out"))
SMALL = "--small" in sys.argv
# (phase, time limit in seconds, environment)
PHASES = [
    ("card", 40, {}), ("attention", 70, {}), ("blocks", 60, {}), ("compiled", 120, {}),
    ("fit", 75, {"PYTORCH_ALLOC_CONF": "expandable_segments:False"}),
    ("fit-expandable", 60, {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}), ("video", 130, {}), ("sparse", 70, {}),
    ("fp8", 80, {}), ("group", 110, {}),
]
BUDGET_S = 570


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    if sys.argv[1] != "all":
        return run_phase(sys.argv[1])
    began, table = time.time(), []
    chosen = [a for a in sys.argv[2:] if not a.startswith("--")]
    for name, limit, extra in PHASES:
        if chosen and name not in chosen:
            continue
        left = BUDGET_S - (time.time() - began)
        if left < 20:
            table.append((name, "no time left"))
            continue
        t = time.time()
        try:
            done = subprocess.run([sys.executable, __file__, name, *(["--small"] if SMALL else [])], env=os.environ | extra,
                                  timeout=min(limit, left), capture_output=True, text=True)
            (OUT / f"{name}.log").write_text(done.stdout[-200000:] + done.stderr[-50000:])
            said = done.stdout.strip().splitlines()
            table.append((name, f"{time.time() - t:.0f} s" + ("" if done.returncode == 0 else f" FAILED {done.stderr.strip().splitlines()[-1:]}")))
            table += [("", line) for line in said[-40:]]
        except subprocess.TimeoutExpired as late:
            table.append((name, f"cut off after {time.time() - t:.0f} s"))
            table += [("", line) for line in (late.stdout or b"").decode(errors="replace").splitlines()[-20:]]
    text = "\n".join(f"{a:16}{b}" for a, b in table)
    (OUT / "table.txt").write_text(text + "\n")
    print(text)


# ---- shared -------------------------------------------------------------------------------------------------------
def setup():
    global torch, F, DEV, DT
    sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch as torch_, torch.nn.functional as F_
    torch, F = torch_, F_
    DEV, DT = ("cpu", torch.float32) if SMALL else ("cuda", torch.bfloat16)
    if SMALL:
        torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    torch.manual_seed(0)


def sync():
    if DEV == "cuda":
        torch.cuda.synchronize()


def timed(fn, n=3, warm=1):
    for _ in range(warm):
        fn()
    times = []
    for _ in range(n):
        sync(); t = time.perf_counter(); fn(); sync(); times.append(time.perf_counter() - t)
    return sorted(times)[len(times) // 2]


def clocks():
    if DEV == "cpu":
        return ""
    q = "clocks.sm,power.draw,temperature.gpu,clocks_event_reasons.active"
    return subprocess.run(["nvidia-smi", f"--query-gpu={q}", "--format=csv,noheader"], capture_output=True, text=True).stdout.strip()


HEADS, HD = (2, 16) if SMALL else (24, 128)
GRID = (3, 6, 8) if SMALL else (33, 45, 80)
TEXT = 8 if SMALL else 256
N = GRID[0] * GRID[1] * GRID[2]
D = HEADS * HD


def qkv(n, dtype=None):
    return [torch.randn(1, n, HEADS, HD, device=DEV, dtype=dtype or DT) for _ in range(3)]


def random_(module):
    """Cheap random weights, with ones for norms: 25 GB in seconds, on a GPU or a CPU."""
    block, there = torch.randn(2**22 if not SMALL else 2**12) * 0.02, {}
    for name, p in [*module.named_parameters(), *module.named_buffers()]:
        if not p.is_floating_point():
            continue
        if p.ndim == 1 and name.endswith("weight"):
            p.data.fill_(1); continue
        key = (p.device, p.dtype)
        if key not in there:
            there[key] = block.to(*key)
        src, flat = there[key], p.data.view(-1)
        for i in range(0, flat.numel(), src.numel()):
            part = flat[i:i + src.numel()]; part.copy_(src[:part.numel()])
    return module.eval().requires_grad_(False)


def whole_transformer(device, layers=None):
    from gpu_check.checkpoint import FULL_SIZE, read_configs
    from diffusers import HunyuanVideoTransformer3DModel
    config = dict(read_configs(FULL_SIZE)["transformer"])
    if SMALL:
        config |= dict(num_attention_heads=HEADS, attention_head_dim=HD, num_layers=1, num_single_layers=2, num_refiner_layers=1,
                       text_embed_dim=32, pooled_projection_dim=16, rope_axes_dim=(4, 6, 6))
    if layers:
        config |= dict(num_layers=layers[0], num_single_layers=layers[1])
    with torch.device("meta"):
        model = HunyuanVideoTransformer3DModel.from_config(config)
    model = random_(model.to(DT).to_empty(device=device))
    from hunyuan_local.pipeline.attention.mask_free import drop_padding
    from hunyuan_local.pipeline.attention.rotary import keep_rotary_tables
    drop_padding(model, "native"); keep_rotary_tables(model)
    return model


def block_inputs(model):
    h, e = torch.randn(1, N, D, device=DEV, dtype=DT), torch.randn(1, TEXT, D, device=DEV, dtype=DT)
    temb = torch.randn(1, D, device=DEV, dtype=DT)
    tables = model.rope(torch.empty(1, 16, GRID[0], GRID[1] * 2, GRID[2] * 2, device=DEV, dtype=DT))
    return h, e, temb, None, tables, None, 0


def step_inputs(model, grid=None):
    t, h, w = grid or GRID
    c = model.config
    return dict(hidden_states=torch.randn(1, 16, t, 2 * h, 2 * w, device=DEV, dtype=DT), timestep=torch.tensor([900.0], device=DEV),
                encoder_hidden_states=torch.randn(1, TEXT, c.text_embed_dim, device=DEV, dtype=DT),
                encoder_attention_mask=torch.ones(1, TEXT, device=DEV, dtype=DT),
                pooled_projections=torch.randn(1, c.pooled_projection_dim, device=DEV, dtype=DT),
                guidance=torch.tensor([6000.0], device=DEV, dtype=DT), return_dict=False)


KINDS = (("attention", r"fmha|flash|sdpa|fort_native|attention|attend"), ("products", r"gemm|nvjet|xmma|cutlass|s\d+gemm|cublas|addmm|aten::mm|linear"))


def by_kind(fn):
    """Milliseconds per call by kind of kernel, and the largest of the other kernels."""
    from torch.profiler import ProfilerActivity, profile
    fn(); sync()
    with profile(activities=[ProfilerActivity.CUDA if DEV == "cuda" else ProfilerActivity.CPU]) as prof:
        fn(); sync()
    sums, rest = {"attention": 0.0, "products": 0.0, "the rest": 0.0}, {}
    for item in prof.key_averages():
        us = item.self_device_time_total if DEV == "cuda" else item.self_cpu_time_total
        kind = next((k for k, pattern in KINDS if re.search(pattern, item.key, re.I)), "the rest")
        sums[kind] += us / 1e3
        if kind == "the rest":
            rest[item.key[:70]] = (us / 1e3, item.count)
    return sums, sorted(rest.items(), key=lambda x: -x[1][0])[:12]


# ---- the blocks that this check compares with unchunked ones ---------------------------------------------------------
def cheaper_norm_and_rope(model):
    """The package's blocks in chunks of tokens, without joined copies."""
    from hunyuan_local.pipeline.blocks import run_in_chunks
    run_in_chunks(model)


# ---- phases ---------------------------------------------------------------------------------------------------------
def card():
    if DEV == "cuda":
        p = torch.cuda.get_device_properties(0)
        print(p.name, p.total_memory, torch.__version__, "cudnn", torch.backends.cudnn.version(), "idle:", clocks())
        x = torch.empty(2**31, device=DEV, dtype=torch.uint8); y = torch.empty_like(x)
        print("copy GB/s (read + written): %.0f" % (2 * x.numel() / timed(lambda: y.copy_(x), 10) / 1e9)); del x, y
    m = N + TEXT
    for k, n in ((D, D), (D, 3 * D), (D, 4 * D), (5 * D, D)):
        a, w, b = torch.randn(m, k, device=DEV, dtype=DT), torch.randn(n, k, device=DEV, dtype=DT) * 0.02, torch.zeros(n, device=DEV, dtype=DT)
        s = timed(lambda: F.linear(a, w, b), 3 if SMALL else 25)
        print("product %d x %d x %d: %.3f ms, %.0f TFLOP/s %s" % (m, k, n, s * 1e3, 2 * m * k * n / s / 1e12, clocks()))


def attention():
    from torch.nn.attention import SDPBackend, sdpa_kernel
    sizes = [N + TEXT] if SMALL else [10496, 119056]
    for n in sizes:
        q, k, v = qkv(n)
        ways = {"native (torch chooses)": lambda: F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)))}
        if DEV == "cuda":
            def only(backend):
                def call():
                    with sdpa_kernel(backend):
                        return F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)))
                return call
            ways |= {"cudnn, no copies": only(SDPBackend.CUDNN_ATTENTION), "flash (FA2)": only(SDPBackend.FLASH_ATTENTION)}
        try:
            from flash_attn.cute import flash_attn_func as fa4
            ways["FA4 cute, sm90"] = lambda: fa4(q, k, v)
        except Exception as error:
            print("FA4:", type(error).__name__, str(error)[:80])
        try:
            from flash_attn_interface import flash_attn_func as fa3
            ways["FA3"] = lambda: fa3(q, k, v)
        except Exception as error:
            print("FA3:", type(error).__name__, str(error)[:80])
        ref = None
        for name, call in ways.items():
            try:
                s = timed(call, 3 if SMALL else (20 if n < 50000 else 8), 2)
                out = call(); out = (out[0] if isinstance(out, tuple) else out)
                out = out.transpose(1, 2) if out.shape[1] == HEADS and out.shape[2] == n else out
                ref = out if ref is None else ref
                print("%d %-24s %.3f ms %.0f TFLOP/s, off by %.3g %s" % (n, name, s * 1e3, 4 * n * n * D / s / 1e12, (out.float() - ref.float()).abs().max(), clocks()))
            except Exception as error:
                print(n, name, type(error).__name__, str(error)[:100])


def _report_blocks(model, title):
    args = block_inputs(model)
    for name, block in (("dual", model.transformer_blocks[0]), ("single", model.single_transformer_blocks[0])):
        s = timed(lambda: block(*args), 3, 2)
        sums, rest = by_kind(lambda: block(*args))
        print("%s, %s block: %.1f ms; %s" % (title, name, s * 1e3, ", ".join(f"{k} {x:.1f}" for k, x in sums.items())))
        for key, (ms, count) in rest[:8]:
            print("      %7.2f ms %4d x %s" % (ms, count, key))
    return args


def blocks():
    """Time outside attention: one block of each kind, eager; then with the cheaper operations."""
    model = whole_transformer(DEV, (1, 1))
    args = _report_blocks(model, "as it is")
    before = [b(*args)[0].clone() for b in (model.transformer_blocks[0], model.single_transformer_blocks[0])]
    cheaper_norm_and_rope(model)
    _report_blocks(model, "cheaper norm and rope")
    after = [b(*args)[0] for b in (model.transformer_blocks[0], model.single_transformer_blocks[0])]
    print("equal to the library's: %s of elements, largest difference %s" % (
        [f"{(a == b).float().mean():.6f}" for a, b in zip(after, before)], [f"{(a.float() - b.float()).abs().max():.3g}" for a, b in zip(after, before)]))


def compiled():
    from hunyuan_local.pipeline.acceleration import compile_blocks
    model = whole_transformer(DEV, (1, 1))
    args = block_inputs(model)
    t = time.perf_counter()
    compile_blocks(model, DEV, "inductor" if not SMALL else "eager")
    for block in (model.transformer_blocks[0], model.single_transformer_blocks[0]):
        block(*args); sync()
    print("compiling both kinds: %.1f s" % (time.perf_counter() - t))
    _report_blocks(model, "compiled, dynamic")
    if DEV == "cuda":
        print("peak allocated %.2f reserved %.2f GiB" % (torch.cuda.max_memory_allocated() / 2**30, torch.cuda.max_memory_reserved() / 2**30))


def fp8():
    from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, PerRow, quantize_
    from hunyuan_local.pipeline.acceleration import compile_blocks
    model = whole_transformer(DEV, (1, 1))
    args = block_inputs(model)
    before = model.single_transformer_blocks[0](*args)[0].clone()
    def wanted(m, name):
        return isinstance(m, torch.nn.Linear) and "block" in name and ".norm" not in name and "context" not in name and "add_" not in name
    quantize_(model, Float8DynamicActivationFloat8WeightConfig(granularity=PerRow()), filter_fn=wanted)
    compile_blocks(model, DEV)
    _report_blocks(model, "fp8 rows, compiled")
    after = model.single_transformer_blocks[0](*args)[0]
    print("relative error of a single block: %.3g" % ((after - before).float().norm() / before.float().norm()))


def sparse():
    """Block-sparse attention with flex_attention; the mask keeps whole blocks of 128 tokens that are close in tile order."""
    from torch.nn.attention.flex_attention import BlockMask, flex_attention
    B = 16 if SMALL else 128
    n = (N + TEXT) // B * B
    call = torch.compile(flex_attention, dynamic=False) if not SMALL else flex_attention
    q, k, v = (x[:, :n].transpose(1, 2) for x in qkv(N + TEXT))
    dense = timed(lambda: F.scaled_dot_product_attention(q, k, v), 3)
    nb = n // B
    for share in (1.0, 0.35, 0.18):
        width = max(1, round(share * nb))
        rows = torch.arange(nb, device=DEV)[:, None]
        keep = ((rows - rows.T).abs() <= width // 2) if share < 1 else torch.ones(nb, nb, dtype=torch.bool, device=DEV)
        num = keep.sum(-1, dtype=torch.int32)[None, None]
        idx = torch.argsort(keep.int(), dim=-1, descending=True, stable=True).int()[None, None]
        mask = BlockMask.from_kv_blocks(torch.zeros_like(num), torch.zeros_like(idx), num, idx, BLOCK_SIZE=(B, B),
                                        mask_mod=lambda b, h, i, j: keep[i // B, j // B], seq_lengths=(n, n))
        s = timed(lambda: call(q, k, v, block_mask=mask), 3)
        kept = keep.float().mean().item()
        print("flex, %.2f of blocks kept: %.1f ms, %.0f TFLOP/s on what is kept; dense sdpa %.1f ms" % (kept, s * 1e3, 4 * n * n * D * kept / s / 1e12, dense * 1e3), flush=True)


def fit():
    """Whether 1280x720x129 fits a 48 GB card with everything resident, as planned (40.2 of 44.4 GiB)."""
    if DEV == "cuda":
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(44.39 * 2**30 / total)
    model = whole_transformer(DEV)
    inputs = step_inputs(model)
    for step in range(2):
        t = time.perf_counter()
        try:
            model(**inputs); sync(); said = "ran"
        except RuntimeError as error:
            said = f"{type(error).__name__}: {str(error)[:160]}"
        if DEV == "cuda":
            print("step %d in 44.4 GiB: %s, %.1f s; allocated %.2f reserved %.2f GiB; retries %d" % (
                step, said, time.perf_counter() - t, torch.cuda.max_memory_allocated() / 2**30, torch.cuda.max_memory_reserved() / 2**30,
                torch.cuda.memory_stats().get("num_alloc_retries", 0)), flush=True)
        else:
            print("step", step, said)


def _package_model(mode):
    """The package's own loading, with random components instead of files."""
    import shutil
    from gpu_check.checkpoint import FULL_SIZE, model_config, read_configs
    from gpu_check.weights import on_meta
    from hunyuan_local.backends.local.profile_choice import named_profile
    from hunyuan_local.config import load_model_config
    from hunyuan_local.pipeline.loading import loader
    tiny = load_model_config("tiny").folder
    configs = {c: json.loads((tiny / c / "config.json").read_text()) for c in ("transformer", "vae", "text_encoder", "text_encoder_2")} if SMALL else read_configs(FULL_SIZE)
    folder = Path(tempfile.mkdtemp())
    shutil.copy(tiny / "model_index.json", folder)
    for name in ("scheduler", "tokenizer", "tokenizer_2"):
        shutil.copytree(tiny / name, folder / name)
    for name, content in configs.items():
        (folder / name).mkdir(); (folder / name / "config.json").write_text(json.dumps(content))

    def read(component, config, folder, profile, placement, **options):
        dtype, device = getattr(torch, getattr(profile.dtypes, component)), placement.loading_device(component)
        module = on_meta(component, configs[component]).to(dtype).to_empty(device=device)
        if component.startswith("text"):  # the constructor creates buffers that are not weights
            for name, b in module.named_buffers():
                if b.is_floating_point():
                    b.data.fill_(0.5)
                elif "position" in name:
                    b.data.copy_(torch.arange(b.numel(), device=b.device).view(b.shape))
        return random_(module)

    loader._read = read
    loader.provide = lambda config, *a: folder
    config = model_config(folder)
    profile = named_profile(mode) if not SMALL else named_profile("cpu")
    return loader.load_model(config, profile.model_copy(update={"prompt_cache": False})), config


def video():
    """A whole video through the package, including decoding and the file; then another prompt in the warm process; then
    skipped steps."""
    from gpu_check.measure import Meter
    from hunyuan_local.planner.tiles import Tiles
    from hunyuan_local.config.profiles import FirstBlockCache
    from hunyuan_local.pipeline.decode import decode
    from hunyuan_local.pipeline.model import decoding_bytes
    from hunyuan_local.pipeline.denoise import denoise
    from hunyuan_local.schema import GenerationRequest
    from hunyuan_local.video import VideoWriter
    record, ends = {}, []
    meter = Meter(DEV, record, lambda: None)
    with meter.stage("load"):
        model, config = _package_model("none+tiling")
        model.prompts.load()
    size = (144, 80, 17) if SMALL else (1280, 720, 129)
    request = GenerationRequest(prompt="a red circle moving right on a black background", width=size[0], height=size[1], num_frames=size[2],
                                num_inference_steps=2, seed=0).with_defaults(dict(config.defaults))
    tell = lambda p: ends.append(meter.now()) if p.stage == "denoise" else None
    with meter.stage("encode"):
        model.prompts.encode(request, print)
    with meter.stage("denoise"):
        found = denoise(model, request, size[:2], tell, print, lambda: False)
    tiling = Tiles(config, request).choose(model.profile, decoding_bytes(model))
    with meter.stage("decode and write"), VideoWriter(OUT / "noise.mp4", frame_size=size[:2], fps=24, overwrite=True) as writer:
        for frames in decode(model, found.latents, tiling):
            writer.write(frames)
        writer.finish("{}")
    with meter.stage("another prompt, warm"):
        model.prompts.encode(request.replace(prompt="another prompt"), print)
    print("steps", [round(b - a, 3) for a, b in zip(ends, ends[1:])], "tiles", tiling)
    ends.clear()
    model.profile = model.profile.model_copy(update={"cache": FirstBlockCache(kind="first-block", threshold=0.99, start=0.0)})
    with meter.stage("denoise, first-block cache, all but one step skipped"):
        denoise(model, request.replace(prompt="another prompt", num_inference_steps=4), size[:2], tell, print, lambda: False)
    print("steps with skips", [round(b - a, 3) for a, b in zip(ends, ends[1:])])
    for name, stage in record["stages"].items():
        gpu = "" if DEV == "cpu" else f"; allocated {stage['gpu_allocated_bytes'] / 2**30:.2f} reserved {stage['gpu_reserved_bytes'] / 2**30:.2f} GiB"
        print(f"{name}: {stage['seconds']:.2f} s{gpu}")
    # Decoding alone, in two ways that change only the order of summation in convolutions.
    if DEV == "cuda":
        for name in ("benchmark", "channels last"):
            torch.backends.cudnn.benchmark = True
            if name == "channels last":
                model.pipe.vae.to(memory_format=torch.channels_last_3d)
            t = meter.now()
            for i, _ in enumerate(decode(model, found.latents, tiling)):
                if i == 3:
                    break
            print(f"four pieces of the decoding, {name}: {meter.now() - t:.2f} s")


def group():
    """Group offload at a small size: everything travels, what is outside the blocks stays; then 720p in 15.6 GiB."""
    from hunyuan_local.config import load_profile
    from hunyuan_local.pipeline.memory.device_allocator import prepare_device_allocator
    from hunyuan_local.pipeline.memory.placement import Placement
    model = whole_transformer("cpu")
    profile = load_profile("gpu-16gb") if DEV == "cuda" else load_profile("cpu").model_copy(update={"offload": "group"})
    if DEV == "cuda":
        print(prepare_device_allocator())
    t = time.perf_counter(); placement = Placement(profile); placement.place("transformer", model)
    print("set up: %.1f s" % (time.perf_counter() - t))
    inputs = step_inputs(model, (2, 6, 8) if SMALL else (16, 20, 32))
    def steps(title):
        times = []
        for _ in range(4):
            sync(); t = time.perf_counter(); model(**inputs); sync(); times.append(round(time.perf_counter() - t, 3))
        print(title, times, flush=True)
    steps("everything travels")
    with placement.active("transformer"):
        steps("what is outside the blocks stays")
        if DEV == "cuda":
            torch.cuda.empty_cache(); torch.cuda.reset_peak_memory_stats()
            torch.cuda.set_per_process_memory_fraction(15.6 * 2**30 / torch.cuda.get_device_properties(0).total_memory)
            inputs = step_inputs(model)
            t = time.perf_counter()
            try:
                model(**inputs); sync(); said = "ran"
            except RuntimeError as error:
                said = str(error)[:160]
            print("1280x720x129 in 15.6 GiB: %s, %.1f s, allocated %.2f reserved %.2f GiB" % (
                said, time.perf_counter() - t, torch.cuda.max_memory_allocated() / 2**30, torch.cuda.max_memory_reserved() / 2**30))


def run_phase(name):
    setup()
    globals()[{"fit-expandable": "fit"}.get(name, name)]()


if __name__ == "__main__":
    main()
