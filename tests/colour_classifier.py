"""A small classifier of red and blue images, with the classes of the default classifier, created in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from transformers import ViTForImageClassification, ViTImageProcessorPil

HEIGHT, WIDTH = 32, 56
LABELS = ("blue", "red")
_COLOURS = {"blue": (30, 60, 230), "red": (230, 30, 30)}
_BACKGROUNDS = ((0, 0, 0), (128, 128, 128), (0, 0, 96))


def picture(rng: np.random.Generator, label: str, height: int = 80, width: int = 144) -> np.ndarray:
    """A disc of this colour with random size and position on a random background; uint8 [height, width, 3]."""
    y, x = np.mgrid[:height, :width]
    radius = rng.uniform(0.12, 0.3) * height
    centre = rng.uniform(radius, height - radius), rng.uniform(radius, width - radius)
    disc = ((y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2)[..., None]
    colours = [np.array(colour) + rng.normal(0, 8, 3) for colour in (_COLOURS[label], _BACKGROUNDS[rng.integers(3)])]
    return np.where(disc, *colours).clip(0, 255).astype(np.uint8)


def small_model(labels: tuple[str, ...] = LABELS, **more: object) -> ViTForImageClassification:
    """An untrained classifier with seeded weights; ``more`` is passed to its config."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    return ViTForImageClassification(ViTConfig(
        image_size=[HEIGHT, WIDTH], patch_size=8, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, initializer_range=0.1, id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)}, **more,
    ))  # fmt: skip


def processor() -> ViTImageProcessorPil:
    """The image processor, which accepts images of any size."""
    from transformers import ViTImageProcessorPil

    return ViTImageProcessorPil(size={"height": HEIGHT, "width": WIDTH})


def train(model: ViTForImageClassification, steps: int) -> ViTForImageClassification:
    """Train it on the two labels, with a seed."""
    import torch

    prepare, rng = processor(), np.random.default_rng(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    for _ in range(steps):
        kinds = rng.integers(len(LABELS), size=32)
        batch = prepare([picture(rng, LABELS[kind]) for kind in kinds], return_tensors="pt")
        loss = model(**batch, labels=torch.from_numpy(kinds)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def save(model: torch.nn.Module, folder: Path) -> Path:
    """Save it with its image processor, under the file name used on the Hub."""
    model.save_pretrained(folder)
    processor().save_pretrained(folder)
    settings = folder / "preprocessor_config.json"
    settings.write_text(settings.read_text().replace("ViTImageProcessorPil", "ViTImageProcessor"))
    return folder
