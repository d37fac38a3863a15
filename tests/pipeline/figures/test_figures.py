"""Figures hold the values that they are given, and every name is safe in a page and in a file."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.axes import Axes

from mser.pipeline.evaluation.calibration import Bin
from mser.pipeline.evaluation.registry import METRICS
from mser.pipeline.figures.points import Point, attribute_figure, drawn_points, embedding_figure
from mser.pipeline.figures.scores import interval_figure, layer_figure, reliability_figure
from mser.pipeline.figures.style import inline, pdf, svg
from mser.pipeline.figures.training import Curve, epoch_figure, with_mean

HOSTILE = "<script>alert(1)</script>\"'&$x_1$ \x00\x1b\ud800 名"


def points_of(axes: Axes, number: int) -> list[list[float]]:
    return np.asarray(axes.lines[number].get_xydata()).tolist()


def test_the_mean_is_over_the_trainings_that_have_a_point() -> None:
    *_, mean = with_mean([[(1, 2.0), (2, 4.0)], [(1, 4.0)]], "train")
    assert mean == Curve([(1, 3.0), (2, 4.0)], "train", mean=True)


def test_values_that_are_not_finite_are_gaps_in_a_curve() -> None:
    inf = float("inf")
    curve = Curve([(1, 0.5), (2, inf), (3, 0.25)], "validation")
    (axes,) = epoch_figure([curve], "loss", [(3, 0.25)]).axes
    (_, first), (_, gap), (_, last) = points_of(axes, 0)
    assert (first, last) == (0.5, 0.25)
    assert np.isnan(gap)
    assert points_of(axes, 1) == [[3, 0.25]]
    assert axes.get_ylim()[0] == 0


def test_an_interval_is_drawn_from_end_to_end_and_the_first_row_is_on_top() -> None:
    figure = interval_figure([("a", 0.5, (0.25, 1.0)), ("b", 0.3, None)], METRICS["wa"])
    (axes,) = figure.axes
    assert points_of(axes, 0) == [[25, 0], [100, 0]]
    assert points_of(axes, 1) == [[50, 0]]
    assert points_of(axes, 2) == [[30, 1], [30, 1]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    low, high = axes.get_ylim()
    assert low > high  # downwards


def test_the_scores_of_the_layers_are_at_the_numbers_of_the_encoder() -> None:
    def score(value: float) -> dict[str, float | None]:
        return {"pooled": value, "ci95_low": value - 0.02, "ci95_high": value + 0.02}

    curves = {"a": [(0, score(0.5)), (12, score(0.6))], "b": [(0, score(0.4))]}
    (axes,) = layer_figure("A title & more", METRICS["ua"], curves, {"a": 0.7, "b": None}).axes
    assert points_of(axes, 0) == [[0, 50], [12, 60]]
    assert points_of(axes, 1) == [[0, 40]]
    assert points_of(axes, 2) == [[0, 70], [1, 70]]  # across the whole panel
    interval = np.asarray(axes.collections[0].get_paths()[1].vertices)
    assert interval.ravel().tolist() == pytest.approx([12, 58, 12, 62])
    legend = axes.get_legend()
    assert legend
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b", "a, all layers"]


def test_each_point_of_an_embedding_has_the_colour_of_its_class_and_its_modality() -> None:
    points = [Point("x", "sad", "speech", 0.0, 0.0), Point("x", "sad", "text", 4.0, 0.0)]
    points += [Point("y", "angry", "text", 4.0, 1.0)]
    figure = embedding_figure("t", {"first": points}, ["angry", "sad"], ["speech", "text"])
    (axes,) = figure.axes
    assert axes.get_aspect() == 1
    drawn = {
        (str(line.get_color()), str(line.get_marker())): points_of(axes, number)
        for number, line in enumerate(axes.lines)
    }
    legend = {h.get_label(): h for h in figure.legends[0].legend_handles if h is not None}
    for point in points:
        colour = legend[point.label].get_color()  # type: ignore[attr-defined]
        marker = legend[point.modality].get_marker()  # type: ignore[attr-defined]
        assert drawn[str(colour), str(marker)] == [[point.x, point.y]]


def test_attributes_are_predicted_against_true_with_the_ccc_of_each_fold() -> None:
    pairs = drawn_points([1.0, 2.0, 5.0], [1.5, 2.0, 4.0])
    left, right = attribute_figure("valence", pairs, {"Ses01": 0.5, "Ses02": -0.25}).axes
    assert points_of(left, 1) == [[1, 1.5], [2, 2], [5, 4]]
    assert left.get_xlim() == left.get_ylim()
    assert [bar.get_width() for bar in right.patches] == [0.5, -0.25]  # type: ignore[attr-defined]
    assert right.get_xlim()[0] <= -0.25
    assert len(drawn_points([0.0] * 4001, [0.0] * 4001)) == 1334  # each third


def test_a_bar_is_as_high_as_a_head_is_right() -> None:
    (axes,) = reliability_figure([Bin(0.2, 0.4, 9, 0.3, 0.75)]).axes
    (bar,) = axes.patches
    assert bar.get_bbox().y1 == pytest.approx(75)  # type: ignore[attr-defined]
    assert bar.get_bbox().x0 == pytest.approx(20)  # type: ignore[attr-defined]


def test_a_hostile_name_is_text_in_a_page_and_in_a_file(capfd: pytest.CaptureFixture[str]) -> None:
    figure = interval_figure([(HOSTILE, 0.5, None)], METRICS["wa"])
    page = inline(figure, HOSTILE, 3)
    assert "<script" not in page
    assert 'data-figure="3"' in page
    assert "#5d636b" not in page  # the colours are those of the page, which may be dark
    (label,) = [
        e.text for e in ElementTree.fromstring(svg(figure)).iter() if "alert" in str(e.text)
    ]
    assert str(label).startswith("<script>alert(1)</script>\"'&")
    assert pdf(figure).startswith(b"%PDF-")
    assert svg(figure) == svg(figure)
    assert capfd.readouterr() == ("", "")


def test_no_figure_reads_or_writes_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    svg(epoch_figure([Curve([(1, 1.0)], "train")], "loss"))
    assert not list(tmp_path.iterdir())
