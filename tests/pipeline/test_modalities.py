"""A further modality is an entry of the table, its encoders and its reader, and nothing else."""

import json
from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mser.cache import FeatureCache
from mser.pipeline.commands.options import with_encoders
from mser.pipeline.encoders import FAMILIES, Encoder
from mser.pipeline.encoders.windows import Window
from mser.pipeline.errors import UsageError
from mser.pipeline.extract import ExtractSettings, extract
from mser.pipeline.extract.audio import decode
from mser.pipeline.extract.readers import READERS, Reader
from mser.pipeline.extract.scan import scan_clips
from mser.pipeline.modalities import MODALITIES, Modality, modality_names
from mser.pipeline.runs.predict import predict
from mser.pipeline.train import TrainSettings, train_head

FRAME = 1600  # samples of the clip that make one picture
Pictures = np.ndarray[Any, np.dtype[np.float32]]


class PictureEncoder(Encoder[Pictures]):
    """Two layers, 4 wide, of pictures (3, frames)."""

    modality = "motion"

    def shape(self) -> tuple[int, int]:
        return 2, 4

    def load(self) -> torch.nn.Module:
        model = torch.nn.Linear(3, 4)
        model.load_state_dict(load_file(self.settings.files.folder / "model.safetensors"))
        return model

    def input_identity(self) -> dict[str, Any]:
        return {"samples_per_picture": FRAME}

    def prepare(self, one: Pictures) -> list[Window]:
        return [Window(one, one.shape[1], slice(0, one.shape[1]))]

    def frames(self, one: Pictures) -> int:
        return int(one.shape[1])

    def planned_frames(self, source: Any, seconds: float) -> int:
        return int(seconds * 16_000) // FRAME

    def hidden_states(
        self, model: torch.nn.Module, values: torch.Tensor, lengths: Sequence[int]
    ) -> Sequence[torch.Tensor]:
        states = model(values.transpose(1, 2))
        return [states, states.tanh()]


def load_pictures(path: Path, content_hash: str | None, encoder: Encoder[Any]) -> Pictures:
    wave = decode(path.read_bytes())
    rows = wave[: len(wave) // FRAME * FRAME].reshape(-1, FRAME)
    return np.stack([rows.std(1), rows.min(1), rows.max(1)]).astype(np.float32)


@pytest.fixture
def motion(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The folder of an encoder of a modality that is registered for the test."""
    folder = tmp_path / "small-motion"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "pictures"}))
    torch.manual_seed(0)
    save_file(torch.nn.Linear(3, 4).state_dict(), folder / "model.safetensors")
    entry = Modality("motion", "small-motion", "audio", "absent")
    monkeypatch.setitem(MODALITIES, "motion", entry)
    monkeypatch.setitem(FAMILIES, "pictures", PictureEncoder)
    reader = Reader(scan_clips, load_pictures, lambda raw: f"{raw.shape[1]} pictures")
    monkeypatch.setitem(READERS, "motion", reader)
    return str(folder)


def test_a_further_modality_is_extracted_trained_on_and_predicted_from(
    motion: str, corpus_root: Path, encoders: dict[str, str], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    chosen = {"motion": motion, "text": encoders["text"]}
    summary = extract(ExtractSettings("synthetic", corpus_root, cache, chosen, workers=0))
    assert [(one.modality, one.new) for one in summary.modalities] == [("motion", 96), ("text", 96)]
    entry = FeatureCache(cache).open("synthetic", modality="motion")
    assert (entry.spec.layers, entry.dim) == ((0, 1), 4)

    settings = TrainSettings(
        "linear",
        "synthetic",
        cache,
        {"motion": None, "text": None},
        out=tmp_path / "run",
        device="cpu",
    )
    run = train_head(settings.with_overrides(["l2=0.1"]))
    assert len(run.metrics["folds"]) == 4

    clip = next((corpus_root).rglob("*.wav"))
    assert predict(run.path, clip, device="cpu").modalities == ("motion",)
    assert predict(run.path, clip, "Excuse me.", device="cpu").modalities == ("motion", "text")


def test_an_encoder_of_another_modality_is_an_error(
    motion: str, corpus_root: Path, tmp_path: Path
) -> None:
    settings = ExtractSettings("synthetic", corpus_root, tmp_path / "cache", {"text": motion})
    with pytest.raises(UsageError, match=r"is a motion encoder .*: give a text encoder .*bert"):
        extract(settings)


def test_an_unknown_modality_lists_the_further_one(motion: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'moiton': did you mean 'motion'\? \(known: .*motion"):
        ExtractSettings("synthetic", tmp_path, tmp_path, {"moiton": "x"})


def test_commands_have_an_option_for_the_encoder_of_each_modality(motion: str) -> None:
    got: dict[str, str] = {}

    @with_encoders(cached=False)
    def command(encoders: dict[str, str], limit: int = 3) -> None:
        got.update(encoders)

    parameters = signature(command).parameters
    assert list(parameters) == [*(f"{name}_encoder" for name in MODALITIES), "limit"]
    command(**{name: one.default for name, one in parameters.items()})
    assert got == {name: modality.encoder for name, modality in MODALITIES.items()}


def test_every_family_and_reader_is_of_a_modality_of_the_table() -> None:
    assert {family.modality for family in FAMILIES.values()} == set(MODALITIES) == set(READERS)


def test_names_in_a_sentence() -> None:
    assert modality_names() == "speech, text or vision"
    assert modality_names(["speech"]) == "speech"
    assert modality_names(["speech", "text", "vision"], last="and") == "speech, text and vision"
