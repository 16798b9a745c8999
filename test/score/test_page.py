"""The HTML report in a real browser without a window, where one is installed, and its data everywhere."""

import json
import re
from pathlib import Path

import browser
import pytest

from asrllm.bin import score
from asrllm.score.recordings import links

TEXT = {
    "a-1": "the cat sat on the mat",
    "a-2": "dogs <b>bark</b> & </script> it",
    "b-1": "a house",
    "b-2": "nothing here",
}
HYPS = {"a-1": "the cat sat on mat mat", "a-2": "dogs <b>bark</b> & </script> it", "b-1": "a a house"}


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """A page of four utterances: one right, one missing; the first has a recording."""
    (tmp_path / "a.wav").write_bytes(b"")
    (tmp_path / "wav.scp").write_text(f"a-1 {tmp_path}/a.wav\na-2 cat x |\nb-1 {tmp_path}/x.ark:77\n")
    for name, texts in (("text", TEXT), ("hyp", HYPS)):
        (tmp_path / name).write_text("".join(f"{utt} {words}\n" for utt, words in texts.items()))
    (tmp_path / "utt2spk").write_text("".join(f"{utt} {utt[0]}\n" for utt in TEXT))
    (tmp_path / "score.yaml").write_text("normalizer: none\nunits: [word, char]")
    options = ["--config", "score.yaml", "--ref", "text", "--hyp", "hyp", "--out", "out"]
    score.main([part if part.startswith("--") else str(tmp_path / part) for part in options])
    return tmp_path / "out" / "report.html"


def test_data_of_the_page(report: Path, tmp_path: Path) -> None:
    text = report.read_text()
    assert not re.search(r"(?:src|href)=", text.split("<script>")[0])  # nothing is fetched
    found = re.search(r'id="data">(.*?)</script>', text)
    assert found is not None
    data = json.loads(found[1])
    assert data["summary"][0][:7] == ["WER", 4, 15, 12, 1, 2, 1]
    assert [row["name"] for row in data["utterances"]] == ["a-a-1", "a-a-2", "b-b-1", "b-b-2"]
    assert data["utterances"][0]["edits"][4:] == [["S", "the", "mat"], ["C", "mat"]]
    assert data["utterances"][0]["audio"] == (tmp_path / "a.wav").as_uri()
    assert "audio" not in data["utterances"][1] and "audio" not in data["utterances"][2]
    assert data["confusions"] == [["the", "mat", 1]]
    assert sum(row["count"] for row in data["lengths"]) == 4


def test_segments_are_linked_with_their_times(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"")
    (tmp_path / "wav.scp").write_text(f"rec {tmp_path}/a.wav\n")
    (tmp_path / "segments").write_text("u1 rec 0.5 1.25\nu2 other 0 1\n")
    assert links(tmp_path) == {"u1": (tmp_path / "a.wav").as_uri() + "#t=0.5,1.25"}
    assert links(tmp_path / "none") == {}


@browser.wanted
@pytest.mark.parametrize(
    ("search", "shown", "hidden"),
    [
        ("", ["a-a-1", "a-a-2", "b-b-1", "b-b-2"], []),
        ("cat", ["a-a-1"], ["b-b-1"]),
        ("b-b", ["b-b-1", "b-b-2"], ["a-a-2"]),
    ],
)
def test_page_in_a_browser(report: Path, tmp_path: Path, search: str, shown: list[str], hidden: list[str]) -> None:
    page = browser.draw(f"{report.as_uri()}#{search}", tmp_path)
    drawn = page.partition('id="utterances">')[2].partition("<script")[0]
    assert all(f"{name}:" in drawn for name in shown)
    assert not any(f"{name}:" in drawn for name in hidden)
    tables = page.partition("<h2>Utterances")[0]
    assert "<td>WER</td>" in tables and "<rect" in tables and "<td>mat</td>" in tables
    if not search:
        assert '<span class="S"><span>the</span><span>mat</span></span>' in drawn
        assert '<span class="D"><span>nothing</span><span>&nbsp;</span></span>' in drawn
        assert "&lt;b&gt;bark&lt;/b&gt;" in drawn  # words are never markup
        assert 'href="file:///' in drawn
