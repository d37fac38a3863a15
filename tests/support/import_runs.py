"""Imports, for tests."""

import pytest

from mser.pipeline.errors import PipelineError
from mser.pipeline.exchange import ImportSettings, import_features


def refusal(wanted: ImportSettings, kind: type[Exception] = PipelineError) -> str:
    with pytest.raises(kind) as raised:
        import_features(wanted)
    assert type(raised.value) is kind
    assert "\n" not in str(raised.value)
    return str(raised.value)
