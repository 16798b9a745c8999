"""bin.score and bin.report on folders made by hand."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from asrllm.bin import report, score
from asrllm.console import UserError
from asrllm.hypothesis import Hypothesis, NBest, shard_name, write_shard
from asrllm.score.scoring import read_score

ROOT = Path(__file__).resolve().parents[2]
SCLITE = Path("/usr/lib/sctk/bin/sclite")
TEXT = {"a-1": "The cat sat.", "a-2": "on the mat", "b-1": "dogs bark", "b-2": ""}
HYPS = {"a-1": "the cat sat", "a-2": "on mat mat", "b-2": "noise"}  # b-1 is missing


def write_ref(folder: Path, text: dict[str, str] = TEXT) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "text").write_text("".join(f"{utt} {words}".rstrip() + "\n" for utt, words in text.items()), "utf-8")
    (folder / "utt2spk").write_text("".join(f"{utt} {utt.split('-')[0]}\n" for utt in text))
    return folder


def write_hyps(folder: Path, hyps: dict[str, str], jobs: int = 1) -> Path:
    results = [NBest(utt, 1.0, [Hypothesis(words, -1.0), Hypothesis("second", -2.0)]) for utt, words in hyps.items()]
    for job in range(1, jobs + 1):
        write_shard(results[job - 1 :: jobs], folder / shard_name(job, jobs))
    return folder


def run_score(tmp_path: Path, hyps: dict[str, str], folder: str = "decode", settings: str = "", jobs: int = 1) -> Path:
    (tmp_path / "score.yaml").write_text(settings)
    ref = tmp_path / "ref"
    if not ref.exists():
        write_ref(ref)
    hyp = write_hyps(tmp_path / folder, hyps, jobs)
    score.main(["--config", str(tmp_path / "score.yaml"), "--ref", str(ref), "--hyp", str(hyp)])
    return hyp


def test_counts_by_hand(tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture) -> None:
    hyp = run_score(tmp_path, HYPS | {"c-9": "stray"}, jobs=2)
    found = read_score(hyp / "score.json")
    assert (found.normalizer, found.normalizer_version) == ("basic", "1")
    assert (found.missing, found.extra) == (("b-1",), ("c-9",))
    assert "counted as deletions: 1 utterance(s), b-1" in caplog.text
    assert "not counted: 1 utterance(s), c-9" in caplog.text
    words, characters = found.units
    assert words.utterances == {"a-1": (3, 0, 0, 0), "a-2": (2, 1, 0, 0), "b-1": (0, 0, 2, 0), "b-2": (0, 0, 0, 1)}
    assert (words.sentences, words.tokens, words.sentence_errors) == (4, 8, 3)
    assert (words.correct, words.substitutions, words.deletions, words.insertions) == (5, 1, 2, 1)
    assert words.err_percent == pytest.approx(50.0)
    low, high = words.interval_percent or (0.0, 0.0)
    assert low < 50 < high
    assert characters.tokens == len("the cat sat") + len("on the mat") + len("dogs bark")
    assert "%WER 50.00 [ 4 / 8, 1 ins, 2 del, 1 sub ]" in capsys.readouterr().out
    words_folder = hyp / "score_wer"
    assert (words_folder / "ref.trn").read_text().splitlines()[0] == "the cat sat (a-a-1)"
    assert (words_folder / "hyp.trn").read_text().splitlines()[2] == "(b-b-1)"
    pra = (words_folder / "hyp.trn.pra").read_text()
    assert "REF:  on THE mat \nHYP:  on MAT mat \nEval:    S       \n" in pra
    row = r"\| Sum/Avg *\| +4 +8 +\| +62.5 +12.5 +25.0 +12.5 +50.0 +75.0 +\|"
    assert re.search(row, (hyp / "result.txt").read_text())


def test_mandarin_counts_characters_without_spaces(tmp_path: Path) -> None:
    write_ref(tmp_path / "ref", {"a-1": "我爱Python。"})
    hyp = run_score(tmp_path, {"a-1": "我 爱 python"}, settings="normalizer: mandarin")
    words, characters = read_score(hyp / "score.json").units
    assert (words.tokens, words.err_percent, characters.tokens, characters.err_percent) == (3, 0.0, 8, 0.0)


@pytest.mark.skipif(not SCLITE.exists(), reason="sclite (Debian package sctk) is not installed")
def test_sclite_reads_the_trn_files_and_agrees(tmp_path: Path) -> None:
    text = {"a-1": "{curly / b} (round) @ x/y", "a-2": "*** ;; AC/DC a&b", "b-1": "** back\\slash", "b-2": "é 我"}
    write_ref(tmp_path / "ref", text)
    hyps = {"a-1": "{curly / (round) @ @", "a-2": ";; *** a&b", "b-2": "é 你"}
    hyp = run_score(tmp_path, hyps, settings="normalizer: none\nunits: [word]")
    command = f"{SCLITE} -r ref.trn trn -h hyp.trn trn -i rm -e utf-8 -o pra stdout".split()
    pra = subprocess.run(command, cwd=hyp / "score_wer", capture_output=True, text=True, check=True).stdout
    theirs = [tuple(map(int, line.split()[-4:])) for line in pra.splitlines() if line.startswith("Scores:")]
    assert theirs == list(read_score(hyp / "score.json").units[0].utterances.values())


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        (lambda p: (p / "ref" / "text").write_text("a-1 x\na-1 y\n"), "text: line 2: utterance a-1 is given twice"),
        (lambda p: (p / "ref" / "text").write_bytes(b"a-1 x\na-2 \xff\n"), "text: line 2: not UTF-8"),
        (lambda p: (p / "ref" / "text").write_text("a-1 x\n\n"), "text: line 2: found an empty line"),
        (lambda p: (p / "ref" / "text").write_text(""), "text: the file is empty"),
        (lambda p: (p / "ref" / "text").unlink(), "text: cannot be read: No such file"),
        (lambda p: (p / "ref" / "text").write_text("z-1 x\n"), "no speaker for 1 utterance.s., z-1"),
        (lambda p: (p / "ref" / "utt2spk").write_text("a-1 a b\n"), "utt2spk: line 1: expected one speaker"),
        (lambda p: write_ref(p / "ref", {"z-1": "x"}), "no utterance in common"),
        (lambda p: (p / "decode" / shard_name(1, 1)).unlink(), r"no hyp.\*.jsonl"),
        (lambda p: (p / "score.yaml").write_text("normaliser: basic"), "did you mean 'normalizer'"),
        (
            lambda p: (p / "score.yaml").write_text("normalizer: up"),
            "input should be 'none', 'kaldi_upper'",
        ),
        (lambda p: (p / "score.yaml").write_text("units: []"), "units: "),
        (lambda p: (p / "score.yaml").write_text("spelling_table: x"), "spelling_table belongs to"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(tmp_path: Path, breakage, message: str) -> None:
    write_ref(tmp_path / "ref")
    write_hyps(tmp_path / "decode", HYPS)
    (tmp_path / "score.yaml").write_text("")
    breakage(tmp_path)
    options = ["--config", tmp_path / "score.yaml", "--ref", tmp_path / "ref", "--hyp", tmp_path / "decode"]
    with pytest.raises(UserError, match=message):
        score.main([str(option) for option in options])
    assert not [path for path in (tmp_path / "decode").iterdir() if not path.name.startswith("hyp.")]


def test_hotwords_that_are_not_there_leave_nothing(tmp_path: Path) -> None:
    write_ref(tmp_path / "ref")
    write_hyps(tmp_path / "decode", HYPS)
    (tmp_path / "score.yaml").write_text("")
    options = ["--config", "score.yaml", "--ref", "ref", "--hyp", "decode", "--hotwords", "none"]
    with pytest.raises(UserError, match="none: no readable file of hotwords"):
        score.main([word if word.startswith("--") else str(tmp_path / word) for word in options])
    assert [path.name for path in (tmp_path / "decode").iterdir()] == [shard_name(1, 1)]


def test_program_exits_with_a_sentence(tmp_path: Path) -> None:
    options = ["--config", "none.yaml", "--ref", "x", "--hyp", "y"]
    done = subprocess.run(
        [sys.executable, "-m", "asrllm.bin.score", *options],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
    assert (done.returncode, done.stderr) == (1, "score: error: none.yaml: no such configuration file\n")


@pytest.fixture
def exp(tmp_path: Path) -> Path:
    """An exp/ folder of 60 utterances: the LLM mends one error in three that the CTC head makes."""
    text = {f"s{n % 3}-{n:02}": "one two three four five" for n in range(60)}
    ctc = {utt: words.replace("two", "too") if n % 2 else words for n, (utt, words) in enumerate(text.items())}
    llm = {utt: words.replace("too", "two") if n % 3 else words for n, (utt, words) in enumerate(ctc.items())}
    write_ref(tmp_path / "ref", text)
    run_score(tmp_path, ctc, "exp/train_align/decode_ctc/test")
    run_score(tmp_path, llm, "exp/train_align/decode_llm/test")
    run_score(tmp_path, ctc, "exp/train_align/decode_beam/test")
    run_score(tmp_path, ctc, "exp/train_encoder/decode_ctc/test")
    run_score(tmp_path, dict(list(text.items())[1:]), "exp/zero_shot/whisper/test")
    align = tmp_path / "exp" / "train_align"
    summary = {
        "parameters": {"encoder": 2_000_000, "projector": 500_000},
        "trained": {"projector": 500_000},
        "wall_hours": 0.25,
        "steps": 400,
        "flops": {"model": 1.5e13},
        "valid": {"llm": 0.51234},
        "command": "python -m asrllm.bin.train --config conf/train_align.yaml",
        "commit": "abc",
    }
    (align / "summary.json").write_text(json.dumps(summary))
    (align / "curves.png").write_bytes(b"picture")
    for job in (1, 2):
        speed = {"seconds_audio": 100.0, "seconds_wall": 25.0, "device": "cpu", "threads": 1}
        (align / "decode_llm" / "test" / f"speed.{job}of2.json").write_text(json.dumps(speed))
    return tmp_path / "exp"


def write_report(exp: Path) -> str:
    out = exp.parent / "RESULTS.md"
    report.main(["--exp", str(exp), "--out", str(out), "--command", "./run.sh"])
    return out.read_text()


def test_report_of_everything(exp: Path) -> None:
    text = write_report(exp)
    wer = text[text.index("## WER") : text.index("## CER")]
    rows = [line.split("|")[1] for line in wer.splitlines() if line.startswith("|")][2:]
    assert rows == [
        "zero_shot/whisper/test",
        "train_encoder/decode_ctc/test",
        "train_align/decode_ctc/test",
        "train_align/decode_beam/test",
        "train_align/decode_llm/test",
    ]
    assert "|dataset|Snt|Wrd|Corr|Sub|Del|Ins|Err|S.Err|" in wer
    assert "|train_align/decode_ctc/test|60|300|90.0|10.0|0.0|0.0|10.0|50.0|" in wer
    helps, _, trained = wer.partition("Does training here help over the recogniser as it came?")
    beam, llm = (line for line in helps.splitlines() if line.startswith("- `train_align"))
    assert beam.startswith("- `train_align/decode_beam/test`: the LLM is not shown to help or to harm: WER 10.00 % ")
    assert "(+0.00 points, 95 % interval +0.00 to +0.00; paired bootstrap p = 1.000, matched pairs p = 1.000)" in beam
    assert "the LLM helps: WER 3.33 % against 10.00 % of `train_align/decode_ctc/test` (-6.67 points" in llm
    against = "against 1.67 % of `zero_shot/whisper/test`"
    assert trained.count(against) == 4  # all but itself
    assert f"- `train_align/decode_ctc/test`: training harms: WER 10.00 % {against} (+8.33 points" in trained
    assert "- `zero_shot/whisper/test`: 1 without a hypothesis, counted as deletions: s0-00" in text
    assert "|train_align/decode_llm/test|200|50|0.250|2|cpu|1|" in text
    assert "|train_align/decode_ctc/test|-|-|-|-|-|-|" in text
    assert "|train_align|2.50 M|0.50 M (projector)|0.25|-|400|1.50e+13|llm 0.5123|" in text
    assert "|train_encoder|-|-|-|-|-|-|" in text
    assert "`python -m asrllm.bin.train --config conf/train_align.yaml` (commit abc)" in text
    assert "![loss curves of train_align](pictures/train_align.png)" in text
    assert (exp.parent / "pictures" / "train_align.png").read_bytes() == b"picture"
    assert "basic (1)" in text and "- command: `./run.sh`" in text


def test_tables_that_espnet_users_paste(exp: Path) -> None:
    done = subprocess.run([ROOT / "utils" / "show_result.sh", exp], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0] == "# RESULTS" and lines[2] == "## Environments"
    start = lines.index("## train_align")
    assert lines[start + 2 : start + 7] == [
        "### WER",
        "",
        "|dataset|Snt|Wrd|Corr|Sub|Del|Ins|Err|S.Err|",
        "|---|---|---|---|---|---|---|---|---|",
        "|decode_ctc/test|60|300|90.0|10.0|0.0|0.0|10.0|50.0|",
    ]
    wrong = subprocess.run([ROOT / "utils" / "show_result.sh", "--help"], capture_output=True, text=True)
    assert wrong.returncode == 2 and wrong.stderr.startswith("usage: ")


def test_a_row_for_each_search_and_what_it_costs(exp: Path, tmp_path: Path) -> None:
    align = exp / "train_align"
    run_score(tmp_path, {f"s{n % 3}-{n:02}": "one two" for n in range(60)}, "exp/train_align/decode_beam16/test")
    run_score(tmp_path, {f"s{n % 3}-{n:02}": "" for n in range(60)}, "exp/train_align/decode_beam2/test2")
    for name, calls in (("decode_llm/test/speed.1of2", "lm_calls"), ("decode_llm/test/speed.2of2", "llm_calls")):
        speed = json.loads((align / f"{name}.json").read_text())
        (align / f"{name}.json").write_text(json.dumps(speed | {calls: 90, "seconds_processor": 20.0}))
    report.main(["--exp", str(exp), "--searches", str(tmp_path / "S.md"), "--command", "./x.sh"])
    text = (tmp_path / "S.md").read_text()
    assert "- command: `./x.sh`" in text
    assert "- train_align: `python -m asrllm.bin.train --config conf/train_align.yaml` (commit abc)" in text
    lines = text.partition("## train_align\n\n")[2].partition("\n\n")[0].splitlines()
    assert lines[0] == (
        "|search|WER % of test|against CTC, test|WER % of test2|against CTC, test2"
        "|RTF|processor s per s of audio|LLM calls per utterance|"
    )
    rows = [line.strip("|").split("|") for line in lines[2:]]
    assert [row[0] for row in rows] == ["ctc", "beam", "beam2", "beam16", "llm"]
    ctc, beam, wide, _, llm = rows
    assert ctc[1].startswith("10.00 (") and ctc[2:] == ["-"] * 6
    assert beam[2] == "+0.00 (+0.0 to +0.0)" and wide[1:3] == ["-", "-"]
    assert wide[3:5] == ["100.00 (100.0 to 100.0)", "-"]  # CTC was not scored there
    assert llm[1].startswith("3.33 (") and llm[2].startswith("-6.67 (-") and llm[5:] == ["0.250", "0.200", "3.0"]


def test_made_up_text_is_a_curve_over_conditions(exp: Path, tmp_path: Path) -> None:
    for name in ("test_snr-5", "test_snr20", "test_silence2"):
        run_score(tmp_path, {"s0-00": "a b c d e f g h i j k l m n"}, f"exp/train_align/decode_llm/{name}")
    part = write_report(exp).partition("## Made-up text")[2].partition("## Speed")[0]
    rows = [line.split("|")[1:4] for line in part.splitlines() if "decode_llm" in line]
    assert [row[0].rpartition("/")[2] for row in rows] == ["test", "test_silence2", "test_snr20", "test_snr-5"]
    assert rows[0][1] == "0.00 (0.00 to 5.96)" and rows[1][1] == "1.67 (0.04 to 8.94)"


def test_report_is_the_same_twice_but_for_the_header(exp: Path) -> None:
    first, second = (write_report(exp).partition("## WER") for _ in range(2))
    assert first[2] == second[2]


def test_other_normaliser_is_not_compared(exp: Path) -> None:
    path = exp / "train_align" / "decode_llm" / "test" / "score.json"
    path.write_text(path.read_text().replace('"normalizer":"basic"', '"normalizer":"none"'))
    text = write_report(exp)
    assert "not comparable with `train_align/decode_ctc/test`, which was scored under another normaliser" in text


def test_report_without_scores_or_with_a_broken_one(exp: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no score.json in any decoding"):
        report.main(["--exp", str(tmp_path / "empty"), "--out", str(tmp_path / "R.md")])
    (exp / "train_align" / "decode_llm" / "test" / "score.json").write_text("{}")
    with pytest.raises(UserError, match="not a score of this release"):
        write_report(exp)
    assert not (exp.parent / "RESULTS.md").exists()
