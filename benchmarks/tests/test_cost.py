"""The page of costs: by hand from other constants, and the page in the repository."""

from pathlib import Path

from mser.benchmarks.cost import Constants, measured, page, table

ROOT = Path(__file__).parents[2]


def test_the_table_is_the_arithmetic_of_its_constants() -> None:
    constants = Constants(gigabytes=2.6, gpu_speed=50.0, cpu_speed=8.0, gpu="a GPU")
    head, _, row = table(constants, {"mine": 100.0}, 3.0).splitlines()
    cells = dict(zip(head.strip("| ").split(" | "), row.strip("| ").split(" | "), strict=True))
    assert cells == {
        "corpus": "mine",
        "hours of audio": "100",
        "float16, all layers, GB": "260",
        "`--frames 4`, all layers, GB": "65.0",
        "`--layers 6,9,12`, GB": "60.0",
        "`--layers last`, GB": "20.0",
        # 80,000 utterances of 4.5 s, each two vectors of 13 · 768 numbers of two bytes
        "`--frames mean`, all layers, GB": "3.2",
        "GPU hours": "2",
        "money, at 3 an hour": "6.00",
        "hours on two cores": "12.5",
    }


def test_the_page_is_that_of_the_measured_constants() -> None:
    assert page(measured()) == (ROOT / "docs" / "cost.md").read_text("utf-8")
