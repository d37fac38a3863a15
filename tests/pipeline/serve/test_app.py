"""The local page: its answers are those of predict, and what it cannot use is one sentence."""

import socket
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from starlette.testclient import TestClient

from mser.pipeline.corpora import synthetic
from mser.pipeline.runs.predict import predict
from mser.pipeline.serve import app as app_module
from mser.pipeline.serve.answers import Answers
from mser.pipeline.serve.app import LONGEST_TEXT, application
from mser.pipeline.train import train_head
from mser.tests.conftest import Call
from mser.tests.support.standard_error import is_one_sentence
from mser.tests.support.train_runs import small

ADDRESS = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, filled_cache: Path) -> Path:
    """A finished run with two seeds. Do not change it."""
    out = tmp_path_factory.mktemp("serve") / "linear"
    return train_head(small("linear", filled_cache, out, "epochs=2", seeds=(0, 3))).path


@pytest.fixture(scope="module")
def client(run: Path, encoders: dict[str, str]) -> Iterator[TestClient]:
    with TestClient(application(Answers(run, encoders=encoders)), base_url=ADDRESS) as client:
        yield client


@pytest.fixture(scope="module")
def clip(corpus_root: Path) -> Path:
    found = synthetic.load(corpus_root).utterances[0].audio
    assert found is not None
    return found


def ask(client: TestClient, content: Any = b"", status: int = 200, **query: Any) -> Any:
    response = client.post("/predict", params=query, content=content)
    assert response.status_code == status, response.text
    return response.json()


def test_the_answer_is_that_of_predict_with_its_spread(
    client: TestClient, run: Path, clip: Path, encoders: dict[str, str]
) -> None:
    text = "oh no & more"
    answer = ask(client, clip.read_bytes(), name="a clip.wav", text=text)
    whole = predict(run, clip, text, encoders=encoders)
    assert answer["predicted"] == whole.winner
    assert answer["checkpoints"] == len(whole.checkpoints) > 1
    assert [row["class"] for row in answer["probabilities"]] == sorted(
        whole.probabilities, key=lambda name: -whole.probabilities[name]
    )
    for row in answer["probabilities"]:
        values = [each.probabilities[row["class"]] for each in whole.checkpoints]
        assert row["mean"] == pytest.approx(sum(values) / len(values))
        assert (row["low"], row["high"]) == (min(values), max(values))
    alone = {
        "text": predict(run, clip, encoders=encoders),
        "audio": predict(run, text=text, encoders=encoders),
    }
    assert {part["source"] for part in answer["without"]} == set(alone)
    falls = [part["fall"] for part in answer["without"]]
    assert falls == sorted(falls, reverse=True)
    assert answer["notes"] == []  # those of the run are on the page
    for part in answer["without"]:
        other = alone[part["source"]]
        assert part["predicted"] == other.winner
        fall = whole.probabilities[str(whole.winner)] - other.probabilities[str(whole.winner)]
        assert part["fall"] == pytest.approx(fall)


def test_a_clip_alone_and_a_text_alone_are_answered(client: TestClient, clip: Path) -> None:
    cases: list[tuple[bytes, dict[str, Any]]] = [(clip.read_bytes(), {}), (b"", {"text": "oh"})]
    for content, query in cases:
        answer = ask(client, content, **query)
        assert answer["without"] == []
        assert any("never trained without" in note for note in answer["notes"])


def test_what_cannot_be_used_is_one_sentence(client: TestClient) -> None:
    noise = ask(client, b"this is a text\n" * 50, 400, name="talk.wav")["error"]
    assert noise.startswith("'talk.wav' cannot be used")
    cases: list[tuple[bytes, dict[str, Any], int, str]] = [
        (b"", {}, 400, "nothing is given: give a clip, a text or both"),
        (b"", {"text": " \n"}, 400, "nothing is given"),
        (b"", {"text": "x" * (LONGEST_TEXT + 1)}, 413, "longer than 2000 characters"),
        (b"x", {"name": "../../etc/passwd"}, 400, "'passwd' cannot be used"),
        (b"x", {"name": "C:\\a\\b.wav"}, 400, "'b.wav' cannot be used"),
        (b"x", {"name": ".."}, 400, "'clip' cannot be used"),
        (b"x", {"name": "\x00\n\u202e"}, 400, "'clip' cannot be used"),
    ]
    for content, query, status, says in cases:
        error = ask(client, content, status, **query)["error"]
        assert says in error
        assert "\n" not in error
        assert "/tmp" not in error


def test_a_large_clip_is_refused_and_not_kept(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_module, "LARGEST_CLIP", 2**20)
    kept: list[int] = []
    ended = TemporaryDirectory.cleanup

    def noted(folder: Any) -> None:
        kept.extend(path.stat().st_size for path in Path(folder.name).iterdir())
        ended(folder)

    monkeypatch.setattr(TemporaryDirectory, "cleanup", noted)
    chunks = (b"x" * 2**18 for _ in range(9))
    error = ask(client, chunks, 413, name="film.mp4")["error"]  # of unknown size
    assert error == "the clip is larger than 1 MiB: cut it to one utterance"
    stated = client.post("/predict", content=b"x", headers={"Content-Length": str(2 * 2**30)})
    assert stated.status_code == 413
    assert all(size <= 2**20 for size in kept)
    assert len(kept) == 2


def test_other_sites_cannot_ask(client: TestClient) -> None:
    for origin in ("https://evil.example", "null", "http://127.0.0.1:9999"):
        response = client.post("/predict?text=oh", headers={"Origin": origin})
        assert response.status_code == 403
    assert client.post("/predict?text=oh", headers={"Origin": ADDRESS}).status_code == 200
    # A name that another site lets point to this machine.
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400
    assert client.get("/predict").status_code == 405


def test_the_page_needs_no_other_place_and_escapes_what_it_shows(
    run: Path, encoders: dict[str, str]
) -> None:
    answers = Answers(run, encoders=encoders)
    hostile = "<script>alert(1)</script>"
    answers.metrics |= {"notes": [hostile], "dataset": hostile}
    with TestClient(application(answers), base_url=ADDRESS) as client:
        response = client.get("/")
    assert hostile not in response.text
    assert "&lt;script&gt;" in response.text
    assert "http" not in response.text.replace("http://www.w3.org/2000/svg", "")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    nonce = policy.partition("script-src 'nonce-")[2].partition("'")[0]
    assert response.text.count("<script") == 1
    assert f'<script nonce="{nonce}">' in response.text
    assert 'id="file"' in response.text
    assert 'id="text"' in response.text


def test_a_port_in_use_and_no_run_are_one_sentence(
    call: Call, run: Path, encoders: dict[str, str], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, out, err = call("serve", run, "--port", port)
        assert (code, out) == (2, "")
        assert is_one_sentence(err), err
        assert "give another --port" in err
    code, out, err = call("serve", tmp_path / "absent", "--port", 0)
    assert (code, out) == (2, "")
    assert is_one_sentence(err), err
    code, out, err = call("serve", run, "--port", 0, "--text-encoder", "./absent")
    assert (code, out) == (2, "")
    assert is_one_sentence(err), err
