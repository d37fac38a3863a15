"""The classifier: its formula, and that the size of its input does not matter."""

import torch

from mser.heads.modules.classifier import classifier
from mser.tests.support.slow_layers import double, linear, norm, randomised


def test_logits_are_linear_in_the_normalised_input() -> None:
    layer_norm, linear_layer = classify = randomised(classifier(5, 3))
    x = double(1, 4, 5)
    expected = [linear(linear_layer, norm(layer_norm, row)) for row in x.tolist()]
    torch.testing.assert_close(classify(x), torch.tensor(expected, dtype=torch.float64))


def test_the_logits_do_not_depend_on_the_scale_of_the_input() -> None:
    classify = randomised(classifier(5, 3))
    x = double(1, 4, 5)
    torch.testing.assert_close(classify(7 * x), classify(x), atol=1e-3, rtol=0)
    torch.testing.assert_close(classify(x + 3), classify(x))
