"""Imported features train with every head, with any width, number of layers and length."""

from pathlib import Path

import numpy as np
import pytest

from mser.heads import HEADS
from mser.pipeline.exchange import import_features
from mser.pipeline.train import train_head
from mser.tests.support.exchange_files import CLASSES, IDS, Array, as_npz, label, settings
from mser.tests.support.train_runs import rows, tiny

CHOSEN = IDS[:12] + IDS[48:52] + IDS[56:60]  # train, validation and test, four classes each
LENGTHS = {"speech": (4, 700, 31, 180), "text": (4, 9, 27, 1)}
# Modality → width, and layers or None for features that have no such axis.
SHAPES = {
    "wide speech": {"speech": (1024, 3), "text": (8, None)},
    "wide text": {"speech": (8, None), "text": (1024, 2)},
}


def hidden_states(modality: str, width: int, layers: int | None) -> dict[str, Array]:
    noise = np.random.default_rng(0)
    made = {}
    for number, id in enumerate(CHOSEN):
        frames = LENGTHS[modality][number % 4]
        shape = (frames, width) if layers is None else (layers, frames, width)
        made[id] = noise.normal(size=shape).astype("float16")
        made[id][..., CLASSES.index(label(id))] += 4
    return made


@pytest.fixture(scope="module", params=SHAPES)
def cache(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both modalities, imported. Do not change them."""
    folder = tmp_path_factory.mktemp("imported")
    for modality, (width, layers) in SHAPES[request.param].items():
        arrays = hidden_states(modality, width, layers)
        source = as_npz(folder / f"{modality}.npz", arrays)
        import_features(settings(folder, source, modality=modality, encoder=f"their/{modality}"))
    return folder / "cache"


@pytest.mark.parametrize("head", sorted(HEADS))
def test_imported_features_train_with_every_head(head: str, cache: Path, tmp_path: Path) -> None:
    asked = tiny(head, cache, tmp_path / "run", "epochs=1", dataset="theirs")
    done = train_head(asked)
    assert done.metrics["test_utterances"] == 4
    found = rows(done)
    assert [row["id"] for row in found] == sorted(CHOSEN[-4:])
    for row in found:
        assert sum(float(row[f"p_{name}"]) for name in CLASSES) == pytest.approx(1)
