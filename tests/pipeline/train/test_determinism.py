"""How a training computes."""

import subprocess
import sys

CODE = """
import sys
import torch
from mser.pipeline.train.determinism import reproducible

with reproducible():
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
assert not torch.are_deterministic_algorithms_enabled()
assert "torch._inductor" not in sys.modules, "a training waits for the import of the compiler"
"""


def test_only_deterministic_operations_are_allowed_and_the_compiler_is_not_imported() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
