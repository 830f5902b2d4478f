"""The frame classifier: its scores, and what is refused before any video is generated."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from colour_classifier import save, small_model
from local_hub import LocalHub

from hunyuan_local.errors import ConfigError, ModelLoadError

if TYPE_CHECKING:
    from hunyuan_local.pipeline.frame_classifier import FrameClassifier

SEVEN = tuple("abcdefg")
GREY = np.full((1, 80, 144, 3), 127, np.uint8)


def load_classifier(*given: object, **more: object) -> FrameClassifier:
    from hunyuan_local.pipeline import frame_classifier

    return frame_classifier.load_classifier(*given, **more)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow use of the Hub, even if the environment does not."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.fixture
def repository(classifier: Path) -> dict[str, bytes]:
    """The classifier as a repository that also has weights in another format."""
    return {path.name: path.read_bytes() for path in classifier.iterdir()} | {"pytorch_model.bin": b"pickle"}


# Scores


def test_each_frame_has_its_own_scores(classifier: Path, clip: Callable[..., np.ndarray]) -> None:
    scores = load_classifier(str(classifier)).classify(clip("red", "blue", "red"))
    assert [max(frame, key=frame.get) for frame in scores] == ["red", "blue", "red"]


@pytest.mark.usefixtures("loads_model")
def test_of_many_labels_all_have_a_score(tmp_path: Path) -> None:
    (scores,) = load_classifier(str(save(small_model(SEVEN), tmp_path))).classify(GREY)
    assert (scores.keys(), sum(scores.values())) == (set(SEVEN), pytest.approx(1))


@pytest.mark.usefixtures("loads_model")
def test_labels_that_go_together_are_scored_one_by_one(tmp_path: Path) -> None:
    import torch

    model = small_model(SEVEN, problem_type="multi_label_classification")
    torch.nn.init.zeros_(model.classifier.weight)
    (scores,) = load_classifier(str(save(model, tmp_path))).classify(GREY)
    assert list(scores.values()) == [0.5] * 7


def test_the_same_pixels_as_the_models_own_processor_are_judged(
    classifier: Path, clip: Callable[..., np.ndarray]
) -> None:
    import torch
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    frames = clip("red", "blue")
    pixels = AutoImageProcessor.from_pretrained(classifier)(list(frames), return_tensors="pt")
    with torch.no_grad():
        expected = AutoModelForImageClassification.from_pretrained(classifier)(**pixels).logits.softmax(-1)
    scores = load_classifier(str(classifier)).classify(frames)
    found = torch.tensor([[frame["blue"], frame["red"]] for frame in scores])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.usefixtures("loads_model")
def test_weights_in_half_precision_are_computed_in_single(tmp_path: Path) -> None:
    import torch

    loaded = load_classifier(str(save(small_model().half(), tmp_path)))
    assert loaded._pipe.model.dtype == torch.float32


def test_frames_of_another_kind_are_refused(classifier: Path) -> None:
    with pytest.raises(ValueError, match=r"uint8 \[n, height, width, 3\]"):
        load_classifier(str(classifier)).classify(GREY.astype(np.float32))


def test_it_is_loaded_once(classifier: Path) -> None:
    assert load_classifier(str(classifier)) is load_classifier(str(classifier))


# What cannot be used


def test_a_missing_folder_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"safety_model='.*none': no such folder.*--safety-model"):
        load_classifier(str(tmp_path / "none"))


def test_an_empty_folder_is_no_classifier(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="cannot be used as an image classifier"):
        load_classifier(str(tmp_path))


@pytest.mark.usefixtures("loads_model")
def test_a_model_without_trained_outputs_is_refused(tmp_path: Path) -> None:
    from transformers import ViTModel

    save(ViTModel(small_model().config, add_pooling_layer=False), tmp_path)
    with pytest.raises(ModelLoadError, match=r"lacks classifier\.bias, classifier\.weight"):
        load_classifier(str(tmp_path))


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    save(small_model(), tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "clip_text_model"}')
    with pytest.raises(ModelLoadError, match="cannot be used as an image classifier"):
        load_classifier(str(tmp_path))


@pytest.mark.usefixtures("loads_model")
def test_weights_in_another_format_are_not_read(tmp_path: Path) -> None:
    import torch

    model = small_model()
    save(model, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelLoadError, match="safetensors"):
        load_classifier(str(tmp_path))


@pytest.mark.usefixtures("loads_model")
def test_damaged_weights_are_found_before_they_judge_anything(tmp_path: Path) -> None:
    import torch

    model = small_model()
    torch.nn.init.constant_(model.classifier.bias, float("nan"))
    save(model, tmp_path)
    with pytest.raises(ModelLoadError, match="score nan"):
        load_classifier(str(tmp_path))


@pytest.mark.usefixtures("loads_model")
def test_a_missing_image_processor_is_an_error_at_once(tmp_path: Path) -> None:
    save(small_model(), tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(ModelLoadError, match="cannot be used as an image classifier"):
        load_classifier(str(tmp_path))


def test_a_folder_has_no_revisions(classifier: Path) -> None:
    with pytest.raises(ConfigError, match=r"safety_revision='v2'.*folder"):
        load_classifier(str(classifier), "v2")


def test_without_pillow_the_extra_is_named(classifier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ConfigError, match=r"hunyuan-local\[safety\]"):
        load_classifier(str(classifier))


@pytest.mark.parametrize(
    ("labels", "says"),
    [(("red", "gore"), "no label 'gore'; its labels are blue, red"), ((), "no label is named")],
)
def test_labels_that_it_does_not_have_are_refused_with_those_that_it_has(
    classifier: Path, labels: tuple[str, ...], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        load_classifier(str(classifier)).check_labels(labels)


def test_the_case_of_labels_does_not_matter(classifier: Path) -> None:
    load_classifier(str(classifier)).check_labels(["RED", "Blue"])


# From the Hub


def test_it_is_downloaded_and_then_used_without_asking(
    repository: dict[str, bytes], tmp_path: Path, network: None, clip: Callable[..., np.ndarray]
) -> None:
    with LocalHub(files=repository) as hub:
        first = load_classifier("someone/tiny", hub=hub.at(tmp_path))
        calls = len(hub.calls)
        again = load_classifier("someone/tiny", hub=hub.at(tmp_path))
        assert (again is first, len(hub.calls)) == (True, calls)
    (scores,) = first.classify(clip("red"))
    assert scores["red"] > 0.5


def test_a_download_is_reported(repository: dict[str, bytes], tmp_path: Path, network: None) -> None:
    notes: list[str] = []
    with LocalHub(files=repository) as hub:
        load_classifier("someone/tiny", on_note=notes.append, hub=hub.at(tmp_path))
        assert notes == [f"downloading the safety classifier someone/tiny from {hub.endpoint}"]


def test_what_is_not_read_is_not_downloaded(repository: dict[str, bytes], tmp_path: Path, network: None) -> None:
    with LocalHub(files=repository) as hub:
        load_classifier("someone/tiny", hub=hub.at(tmp_path))
        assert (hub.asked_for("pytorch_model.bin"), len(hub.asked_for("model.safetensors"))) == ([], 1)


@pytest.mark.parametrize(
    ("model_id", "revision", "says"),
    [("someone/else", None, "no such Hub repository"), ("someone/tiny", "v9", "no revision 'v9'")],
)
def test_what_the_hub_does_not_have_is_named(
    repository: dict[str, bytes], tmp_path: Path, network: None, model_id: str, revision: str | None, says: str
) -> None:
    with LocalHub(files=repository) as hub, pytest.raises(ModelLoadError, match=f"'{model_id}'.*{says}"):
        load_classifier(model_id, revision, hub=hub.at(tmp_path))


def test_offline_nothing_is_asked(
    repository: dict[str, bytes], tmp_path: Path, network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with LocalHub(files=repository) as hub:
        with pytest.raises(ModelLoadError, match="HF_HUB_OFFLINE is set"):
            load_classifier("someone/tiny", hub=hub.at(tmp_path))
        assert hub.calls == []
