"""An encoder whose card tells of emotion labels marks the runs on its features."""

import shutil
from pathlib import Path

import pytest

from mser.pipeline.encoders.model_card import emotion_labels
from mser.pipeline.extract import ExtractSettings, extract
from mser.pipeline.train.examples import find_examples

CARD = (
    "---\ntags:\n- audio\n- emotion-recognition\ndatasets:\n- librispeech_asr\n- msp-podcast\n---\n"
)


@pytest.mark.parametrize(
    ("card", "labels"),
    [
        (CARD, ["msp-podcast", "emotion-recognition"]),
        ("---\ndatasets: IEMOCAP\n---\n", ["IEMOCAP"]),
        ("---\ndatasets:\n- librispeech_asr\n- meldrum\n---\nemotion\n", []),
        ("---\ndatasets: {a: 1}\ntags: 7\n---\n", []),
        ("---\n: [\n---\n", []),
        ("emotion", []),
        (None, []),
    ],
)
def test_the_header_of_the_card_is_read(tmp_path: Path, card: str | None, labels) -> None:
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert emotion_labels(tmp_path) == labels


def test_features_of_such_an_encoder_have_a_note(encoders: dict[str, str], tmp_path: Path) -> None:
    encoder = shutil.copytree(encoders["text"], tmp_path / "emotion-bert")
    (tmp_path / "mine.csv").write_text("id,text,label\n1,one,a\n2,two,b\n")

    def notes(cache: Path) -> tuple[str, ...]:
        extract(
            ExtractSettings(
                "manifest",
                cache=cache,
                encoders={"text": str(encoder)},
                manifest=tmp_path / "mine.csv",
                name="mine",
                workers=0,
                device="cpu",
            )
        )
        return find_examples(cache, "mine", {"text": None}).corpus.notes

    assert notes(tmp_path / "a") == ()
    (encoder / "README.md").write_text(CARD)
    (note,) = notes(tmp_path / "b")
    assert note.startswith("the text encoder emotion-bert was trained on emotion labels, by its")
    assert "(msp-podcast, emotion-recognition)" in note
