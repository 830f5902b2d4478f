"""Panels that group options and commands in ``--help``, in display order."""

from __future__ import annotations

import rich_click as click

# Options for first-time users come first. Options listed nowhere here appear last, under "Options".
PANELS: dict[str, tuple[str, ...]] = {
    "Video": (
        "--size", "--width", "--height", "--num-frames", "--num-inference-steps", "--seed", "--seeds", "--fps",
        "--image", "--image-fit", "--negative-prompt", "--guidance-scale", "--true-cfg-scale", "--flow-shift",
    ),
    "Model and device": ("--model", "--revision", "--profile", "--lora", "--accept-licence"),
    "Machine": ("--gpu", "--gpu-memory", "--host-memory", "--num-gpus", "--videos", "--all"),
    "Batch": ("--format", "--num-videos-per-prompt", "--skip-invalid"),
    "Bench": ("--scenarios", "--repeats"),
    "Output": (
        "--output", "--output-dir", "--overwrite", "--report", "--keep-videos", "--preview-every", "--json",
    ),
    "Address and access": (
        "--host", "--port", "--api-keys-file", "--insecure", "--public-url", "--allow-origin", "--video-url-ttl",
        "--allow-private-webhooks", "--allow-private-images", "--page", "--no-browser",
    ),
    "Limits": (
        "--relaxed", "--max-queue", "--max-attempts", "--max-prompt-characters", "--max-voxels", "--sync-timeout",
        "--retention", "--min-free-gib",
    ),
    "Speed": ("--cache",),
    "Prompt rewriting": (
        "--rewrite", "--rewrite-model", "--rewrite-revision", "--rewrite-endpoint", "--rewrite-timeout",
        "--rewrite-failure",
    ),
    "Safety": (
        "--safety", "--safety-model", "--safety-revision", "--safety-label", "--safety-threshold", "--safety-frames",
    ),
    "Hosted service": (
        "--backend", "--api-key", "--base-url", "--timeout", "--concurrency", "--max-cost", "--yes", "--allow-loss",
        "--submit-again", "--list-backends",
    ),
    "Interrupted runs": (
        "--checkpoint-dir", "--checkpoint-every", "--retry-failed", "--forget", "--data-dir", "--lease",
        "--encode-ahead",
    ),
    "Several GPUs": (
        "--context-parallel", "--context-parallel-mode", "--workers", "--executor", "--ray-address", "--num-replicas",
    ),
}  # fmt: skip

COMMANDS = {
    "Videos": ("generate", "batch", "plan", "explain", "show", "replay", "resume"),
    "Server": ("ui", "serve", "worker", "jobs"),
    "Models and machine": ("models", "download", "doctor", "smoke", "bench"),
}


def arrange(command: click.Command) -> None:
    """Group the options of a command into panels; a command with few options keeps a single list."""
    names = {name for parameter in command.params for name in parameter.opts}
    if not isinstance(command, click.RichCommand) or command.panels or len(names) < 12:
        return
    for title, options in PANELS.items():
        if present := [option for option in options if option in names]:
            command.add_panel(click.RichOptionPanel(title, options=present))


def arrange_commands(group: click.RichGroup) -> None:
    """Group the list of commands into panels."""
    for title, names in COMMANDS.items():
        group.add_panel(click.RichCommandPanel(title, commands=list(names)))
