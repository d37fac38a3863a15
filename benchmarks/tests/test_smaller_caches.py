"""The forms of the benchmark of smaller caches hold what an extraction would store."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mser.benchmarks.smaller_caches import FORMS, Form, in_form, size_rows
from mser.cache import EntrySpec, FeatureCache, UtteranceFeatures

STATES = {
    f"u{n}": np.random.default_rng(n).standard_normal((2, 20 + n, 16), "f4") for n in range(6)
}


def test_each_form_has_its_size_and_its_errors(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "exact")
    writer = cache.writer(EntrySpec("made-up", "speech", "e", {}, (0, 7), 16, "float32"), {})
    writer.write_shard(0, [UtteranceFeatures(id, id, states) for id, states in STATES.items()])
    writer.publish(cache.write_manifest("made-up", pa.table({"id": [*STATES]})))
    exact = cache.open("made-up")
    entries = {
        form: in_form(exact, cache, tmp_path / str(form), form, exact.layers) for form in FORMS
    }
    for id, states in STATES.items():
        np.testing.assert_array_equal(entries[Form("float32")][id], states)
        np.testing.assert_array_equal(entries[Form("float16")][id], states.astype("f2"))
        mean = states.mean(axis=1, keepdims=True, dtype="f8").astype("f4")
        np.testing.assert_array_equal(entries[Form("float32", "mean")][id], mean)
    rows: Any = size_rows(entries, rounds=2)
    assert [*rows] == [str(form) for form in FORMS]
    assert rows["float32"]["largest error"] == 0
    deviation = np.concatenate([*STATES.values()], axis=1).std(axis=1)[:, None]
    errors = [
        np.abs(states.astype("f2").astype("f4") - states) / deviation for states in STATES.values()
    ]
    largest = max(float(error.max()) for error in errors)
    np.testing.assert_allclose(rows["float16"]["largest error"], largest, rtol=1e-4)
    assert 0 < rows["float16"]["mean error"] < rows["int8"]["mean error"] < 0.02
    only = in_form(exact, cache, tmp_path / "layer", Form("int8"), (7,))
    assert only.layers == (7,)
