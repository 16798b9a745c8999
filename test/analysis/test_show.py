"""The page of an experiment: all its data in one file, and in a real browser where one is installed."""

import base64
import io
import json
import re
from pathlib import Path

import browser
import pytest
import soundfile
from toy_corpus import refused

from asrllm.bin import analyze, show
from asrllm.hypothesis import read_decoding

JOINT = "exp/train_joint"


def content(path: str) -> tuple[dict, str]:
    """The data of a page, and the page."""
    text = Path(path).read_text()
    found = re.search(r'id="data">(.*?)</script>', text)
    assert found is not None
    return json.loads(found[1]), text


def test_everything_is_in_the_file(work: Path) -> None:
    analyze.main(["hallucination", "--exp", "exp", "--out", "figures"])
    show.main(
        [JOINT, "--data", "dump/test", "--decoding", "decode_ctc/test", "--examples", "5", "--figures", "figures"]
    )
    data, text = content(f"{JOINT}/page.html")
    assert not re.search(r"(?:src|href)=", text.split("<script>")[0])  # nothing is fetched
    assert "http:" not in text.replace('"http:"', "") and "https:" not in text
    assert {row[0] for row in data["results"]} == {"decode_ctc/test", "decode_greedy/test", "decode_beam/test"}
    score = json.loads(Path(f"{JOINT}/decode_ctc/test/score.json").read_text())["units"][0]
    assert [row[7] for row in data["results"] if row[0] == "decode_ctc/test"] == [f"{score['err_percent']:.2f}"]
    curves, made_up = data["figures"]
    for figure, path in ((curves, f"{JOINT}/curves.png"), (made_up, "figures/hallucination.png")):
        assert base64.b64decode(figure["picture"].partition(",")[2]) == Path(path).read_bytes()
    assert made_up["blocks"][0][0][1] == "unrelated" and len(made_up["blocks"][0]) == 11
    summary = json.loads(Path(f"{JOINT}/summary.json").read_text())
    assert ["steps", str(summary["steps"])] in data["about"]


def test_examples_are_heard_and_aligned(work: Path) -> None:
    show.main([JOINT, "--data", "dump/test", "--decoding", "decode_ctc/test", "--examples", "12", "--out", "page.html"])
    data, _ = content("page.html")
    counts = json.loads(Path(f"{JOINT}/decode_ctc/test/score.json").read_text())["units"][0]["utterances"]
    errors = [row["errors"] for row in data["examples"]]
    assert len(errors) == len(counts) == 12 and errors == sorted(errors, reverse=True)
    assert sum(errors) == sum(sum(each[1:]) for each in counts.values())
    decoding = read_decoding(Path(f"{JOINT}/decode_ctc/test"))
    for row in data["examples"]:
        utt_id = row["name"].partition("-")[2]
        said = [edit[2] if len(edit) == 3 else edit[1] for edit in row["edits"] if edit[0] != "D"]
        assert " ".join(said) == decoding[utt_id].best.text
        wave, rate = soundfile.read(io.BytesIO(base64.b64decode(row["audio"].partition(",")[2])))
        assert rate == 16000 and len(wave) / rate == pytest.approx(decoding[utt_id].seconds, abs=1e-3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([JOINT, "--decoding", "decode_none/test"], "--decoding decode_none/test: exp/train_joint has decode_ctc/test"),
        (["exp/none"], "exp/none: no such experiment"),
        (["exp/tokenizer"], "none of its decodings is scored"),
        ([JOINT, "--figures", "conf"], "conf: no analysis there"),
        ([JOINT, "--data", "dump/train"], "no utterance in common"),
    ],
)
def test_mistakes_are_one_sentence(
    work: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(capsys, "show", options)[0]


@browser.wanted
def test_page_of_an_experiment_in_a_browser(work: Path, tmp_path: Path) -> None:
    show.main([JOINT, "--data", "dump/test", "--decoding", "decode_greedy/test", "--out", "page.html"])
    drawn = browser.draw(Path("page.html").resolve().as_uri(), tmp_path).partition("<script")[0]
    assert "<td>decode_greedy/test</td>" in drawn and "<td>steps</td>" in drawn
    assert 'src="data:image/png;base64,' in drawn and drawn.count('<audio src="data:audio/wav;base64,') == 12
    assert drawn.count('class="words"') == 12
