"""All three modalities, from the clips of a corpus to scores and predictions."""

import json
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from scipy.io import wavfile
from transformers import AutoImageProcessor, AutoModel

from mser import FeatureCache
from mser.pipeline.corpora import synthetic
from mser.pipeline.corpora.synthetic_face import RATE
from mser.pipeline.encoders.random_encoders import save_vision_encoder
from mser.pipeline.extract import ExtractSettings, Summary, extract
from mser.tests.conftest import Call
from mser.tests.support.crema_d_tree import POINTER, write_crema_d
from mser.tests.support.extract_runs import assert_rounded
from mser.tests.support.standard_error import is_one_sentence
from mser.tests.support.videos import pictures, write_video

MODALITIES = ("speech", "text", "vision")
HBF = [
    *("--set", "epochs=1", "--set", "head.width=16", "--set", "head.projection=8"),
    *("--set", "head.n_attention_heads=2", "--set", "head.n_bottlenecks=2", "--device", "cpu"),
]


class Ran:
    """A synthetic corpus of 16 utterances, and a cache with three modalities of it."""

    def __init__(self, folder: Path, encoders: dict[str, str]) -> None:
        self.corpus, self.cache = folder / "corpus", folder / "cache"
        self.vit = save_vision_encoder(folder / "vit", num_hidden_layers=1)
        self.encoders = {**encoders, "vision": str(self.vit)}
        synthetic.make(self.corpus, utterances_per_session=4)
        self.summary: Summary = extract(
            ExtractSettings("synthetic", self.corpus, self.cache, self.encoders, workers=0)
        )


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, encoders: dict[str, str]) -> Ran:
    return Ran(tmp_path_factory.mktemp("three"), encoders)


def frames_of(path: Path, fps: float) -> Any:
    """Every frame of a constant rate that is a multiple of ``fps``, by PyAV alone."""
    with av.open(str(path)) as container:
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(shown[:: round(RATE / fps)])


def test_features_equal_a_direct_forward_pass_on_frames_decoded_independently(ran: Ran) -> None:
    entry = FeatureCache(ran.cache).open("synthetic", modality="vision")
    assert (entry.layers, entry.dim, len(entry)) == ((0, 1), 128, 16)
    for utterance in synthetic.load(ran.corpus).utterances[::5]:
        assert utterance.video is not None
        expected = direct_tokens(ran.vit, frames_of(utterance.video, 5))
        assert_rounded(entry[utterance.id], expected)


def direct_tokens(folder: Path, video: Any) -> Any:
    processor = AutoImageProcessor.from_pretrained(folder, use_fast=False)
    inputs = processor(images=list(video), return_tensors="pt")
    with torch.inference_mode():
        model = AutoModel.from_pretrained(folder).eval()
        states = model(**inputs, output_hidden_states=True).hidden_states
    return torch.stack([torch.cat([s[:, 0], s[:, 1:].mean(1)], 1) for s in states]).numpy()


def test_a_second_extraction_computes_nothing_and_another_choice_is_another_entry(
    ran: Ran, tmp_path: Path
) -> None:
    cache = shutil.copytree(ran.cache, tmp_path / "cache")
    vision = {"vision": str(ran.vit)}
    (again,) = extract(
        ExtractSettings("synthetic", ran.corpus, cache, vision, workers=0)
    ).modalities
    assert (again.present, again.new) == (16, 0)
    (other,) = extract(
        ExtractSettings("synthetic", ran.corpus, cache, vision, workers=0, limit=2, video_frames=3)
    ).modalities
    assert (other.new, other.entry != again.entry) == (2, True)
    entry = FeatureCache(cache).open("synthetic", other.entry.rpartition("-")[2])
    assert {entry.length(id) for id in entry.ids} == {3}


def test_three_modalities_are_trained_on_and_evaluated_without_one(ran: Ran, call: Call) -> None:
    three = ["--modalities", ",".join(MODALITIES), "--cache", ran.cache]
    code, _, err = call(
        *("train-head", "--head", "hbf", "--dataset", "synthetic", "--out", "run", "--fold"),
        *("ses01", *HBF, *three),
    )
    assert code == 0, err
    code, out, err = call("evaluate", "run", "--missing", "vision", "--json")
    assert code == 0, err
    assert json.loads(out)["missing"] == ["vision"]
    clip = sorted((ran.corpus / "video").rglob("*.avi"))[0]
    sound = ran.corpus / "wav" / clip.parent.name / f"{clip.stem}.wav"
    code, out, err = call("predict", "run", "--video", clip, "--json")
    assert code == 0, err
    assert json.loads(out)["modalities"] == ["vision"]  # the video has no sound
    code, out, err = call("predict", "run", "--video", clip, "--audio", sound, "--json")
    assert json.loads(out)["modalities"] == ["speech", "vision"]
    seen, (_, heard) = frames_of(clip, RATE), wavfile.read(sound)
    with_both = write_video(Path("both.mov"), seen, rate=RATE, sound=heard)
    code, one, err = call("predict", "run", "--video", with_both, "--json")
    assert code == 0, err
    assert json.loads(one)["modalities"] == ["speech", "vision"]
    expected, found = (json.loads(text)["probabilities"] for text in (out, one))
    assert found == pytest.approx(expected, abs=1e-4)


def test_a_corpus_without_videos_is_one_sentence(ran: Ran, call: Call, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text\na,hello\n")
    code, _, err = call(
        *("extract", "--dataset", "manifest", "--manifest", "a.csv", "--name", "a"),
        *("--modalities", "vision", "--vision-encoder", ran.vit, "--cache", "cache"),
    )
    assert (code, "no utterance of a has video" in err, is_one_sentence(err)) == (2, True, True)


def test_the_times_and_the_side_of_a_manifest(ran: Ran, call: Call, tmp_path: Path) -> None:
    shown = pictures(20, 64, 128)
    write_video(tmp_path / "talk.mov", shown, rate=10)
    (tmp_path / "a.csv").write_text(
        "id,video,video_start,video_end,video_side\n"
        "left,talk.mov,0.5,1.1,left\nright,talk.mov,0.5,1.1,right\nwhole,talk.mov,,,\n"
        "late,talk.mov,5,6,\nnone,,,,\n"
    )
    code, out, err = call(
        *("extract", "--dataset", "manifest", "--manifest", "a.csv", "--name", "a"),
        *("--modalities", "vision", "--vision-encoder", ran.vit, "--cache", "cache"),
        *("--workers", "0", "--dtype", "float32", "--json"),
    )
    assert code == 0, err
    (vision,) = json.loads(out)["modalities"]
    assert {bad["id"]: bad["reason"] for bad in vision["quarantined"]} == {
        "late": "empty",
        "none": "absent",
    }
    entry = FeatureCache("cache").open("a")
    halves = {"left": shown[5:11:2, :, :64], "right": shown[5:11:2, :, 64:]}
    for id, video in {**halves, "whole": shown[::2]}.items():
        expected = direct_tokens(ran.vit, video)
        np.testing.assert_allclose(entry[id], expected, atol=1e-5)
    table = entry.corpus()
    assert table.video_side == ["left", "right", None, None, None]
    assert len(set(filter(None, table.video_sha256))) == 4  # not of the one without a video


def test_a_git_lfs_pointer_is_named(ran: Ran, tmp_path: Path) -> None:
    root = write_crema_d(tmp_path / "crema-d")
    film = root / "VideoFlash" / "1002_IEO_ANG_HI.flv"
    write_video(film, pictures(6, 16, 16), codec="flv", pixels="yuv420p")
    chosen = {"vision": str(ran.vit)}
    (vision,) = extract(
        ExtractSettings("crema-d", root, tmp_path / "cache", chosen, workers=0)
    ).modalities
    assert vision.new == 1
    reasons = {bad.id: (bad.reason, bad.detail) for bad in vision.quarantined}
    reason, detail = reasons.pop("1001_IEO_ANG_HI")
    assert POINTER in (root / "VideoFlash" / "1001_IEO_ANG_HI.flv").read_text()
    assert reason == "git-lfs-pointer"
    assert "not a video: run 'git lfs pull'" in detail
    assert {reason for reason, _ in reasons.values()} == {"absent"}
