"""Metrics of attributes, such as valence, from sums over utterances.

The sums of one attribute, (…, 6) float64, are those of 1, x, y, x², y² and x·y over utterances,
with the prediction x and the label y. Both are shifted by one number and divided by another before
they are squared, so that the differences below keep their digits. With weights in the sums, one
function scores the predictions of a run and all samples of a bootstrap.

All variances and covariances have the divisor n. A metric of correlation is 0 where the predictions
or the labels do not vary, and for one utterance: there is no correlation, and NaN would spread into
means over folds.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .registry import Metric

Numbers = NDArray[Any]

_FLAT = 1e-12  # of the mean square: a smaller variance is that of rounding


def _concordance(sums: Numbers) -> Numbers:
    """CCC = 2 s_xy / (s_x² + s_y² + (x̄ - ȳ)²) (Lin, Biometrics 45, 1989)."""
    mean_x, mean_y, var_x, var_y, covariance = _moments(sums)
    return _ratio(2 * covariance, var_x + var_y + (mean_x - mean_y) ** 2)


def _pearson(sums: Numbers) -> Numbers:
    """Pearson's correlation r = s_xy / (s_x · s_y)."""
    _, _, var_x, var_y, covariance = _moments(sums)
    return _ratio(covariance, np.sqrt(var_x * var_y))


def _squared_error(sums: Numbers) -> Numbers:
    """Mean squared error, in squared units of the shifted and divided numbers."""
    count, _, _, xx, yy, xy = np.moveaxis(sums, -1, 0)
    error: Numbers = np.maximum((xx + yy - 2 * xy) / count, 0.0)
    return error


def _moments(sums: Numbers) -> tuple[Numbers, ...]:
    """Return means, variances and the covariance; no variance and no covariance where one is 0."""
    count, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    mean_x, mean_y = x / count, y / count
    var_x, var_y = xx / count - mean_x**2, yy / count - mean_y**2
    var_x = np.where(var_x > _FLAT * xx / count, var_x, 0.0)
    var_y = np.where(var_y > _FLAT * yy / count, var_y, 0.0)
    covariance = np.where((var_x > 0) & (var_y > 0), xy / count - mean_x * mean_y, 0.0)
    return mean_x, mean_y, var_x, var_y, covariance


def _ratio(above: Numbers, below: Numbers) -> Numbers:
    ratio: Numbers = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    return np.clip(ratio, -1.0, 1.0)


NUMBER_METRICS: dict[str, Metric] = {
    "ccc": Metric("CCC", _concordance, percent=False),
    "pearson": Metric("Pearson", _pearson, percent=False),
    "mse": Metric("MSE", _squared_error, percent=False, larger_is_better=False),
}
"""Name → metric of the sums of one attribute, in the order of tables."""


def number_metrics(attributes: tuple[str, ...]) -> dict[str, Metric]:
    """Return the metrics of several attributes: their means, then those of each attribute.

    ``ccc`` is the mean over the attributes and ``ccc_valence`` that of one. With one attribute
    there are no means. The functions have no meaning alone: :func:`scored` applies them.
    """
    if len(attributes) == 1:
        return dict(NUMBER_METRICS)
    means = dict(NUMBER_METRICS)
    for name, metric in NUMBER_METRICS.items():
        for attribute in attributes:
            means[f"{name}_{attribute}"] = _of(metric, attribute)
    return means


def _of(metric: Metric, attribute: str) -> Metric:
    title = f"{metric.title} {attribute}"
    return Metric(title, metric.score, metric.percent, metric.larger_is_better)


def shift_and_scale(labels: Numbers) -> tuple[Numbers, Numbers]:
    """Return what is subtracted from labels and predictions (…, attributes), and their divisor."""
    shift = labels.mean(axis=0)
    scale = labels.std(axis=0)
    return shift, np.where(scale > 0, scale, 1.0)


def sums_of(labels: Numbers, predicted: Numbers) -> Numbers:
    """Return the contributions of utterances to the sums, (…, attributes, 6).

    ``labels`` and ``predicted`` (…, attributes) are shifted and divided already.
    """
    x, y = np.broadcast_arrays(predicted, labels)
    return np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=-1)


def scored(sums: Numbers, attributes: tuple[str, ...], scale: Numbers) -> dict[str, Numbers]:
    """Return the metrics of sums (…, attributes, 6) by the names of :func:`number_metrics`; (…).

    ``scale`` (attributes,) is what the numbers were divided by: the MSE is that of the original
    numbers.
    """
    results: dict[str, Numbers] = {}
    score: Callable[[Numbers], Numbers]
    for name, metric in NUMBER_METRICS.items():
        score = metric.score
        of_each = score(sums) * (scale**2 if name == "mse" else 1.0)
        results[name] = of_each.mean(axis=-1)
        if len(attributes) > 1:
            for number, attribute in enumerate(attributes):
                results[f"{name}_{attribute}"] = of_each[..., number]
    return {name: results[name] for name in number_metrics(attributes)}
