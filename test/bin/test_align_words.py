"""Words aligned by the toy recipe's encoder, whose corpus says to the sample where each word lies."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
from toy_corpus import refused

from asrllm.bin import align, decode, score
from asrllm.data import audio, kaldi
from asrllm.score.timed import read_ctm

OPTIONS = "--exp exp/train_encoder --data dump/test --out aligned"
FIRST, STEP, LONG = 0.05, 0.35, 0.25  # seconds: the first word, from one to the next, each (toy_corpus.write_data)


def run(program: ModuleType, line: str) -> None:
    program.main(line.split())


def words(path: str = "aligned/words.ctm") -> dict[str, list[tuple[str, float, float]]]:
    return {
        file: [(each.text, each.start, each.seconds) for each in items]
        for (file, _), items in read_ctm(Path(path)).items()
    }


def test_words_are_found_where_they_were_put(work: Path) -> None:
    run(align, OPTIONS)
    texts = {each.utt_id: each.text.split() for each in kaldi.read(Path("dump/test"))}
    assert {key: [each[0] for each in value] for key, value in words().items()} == texts
    off = []
    for found in words().values():
        for number, (_, start, seconds) in enumerate(found):
            begin = FIRST + number * STEP
            off.append(abs(start + seconds / 2 - (begin + LONG / 2)))
            assert begin - 0.1 < start and start + seconds < begin + LONG + 0.1
    assert max(off) < 0.15 and sum(off) / len(off) < 0.06
    assert Path("aligned/not_aligned").read_text() == ""


def test_times_are_those_of_the_recording_and_can_be_scored(work: Path) -> None:
    """The test set as segments of one long recording, each 2 s after the one before; decoded, aligned, scored."""
    utterances = kaldi.read(Path("dump/test"))
    tape = np.zeros(16000 * 2 * len(utterances), dtype="float32")
    segments, lines = [], []
    for number, each in enumerate(utterances):
        wave = audio.load(each, 16000).numpy()
        tape[32000 * number : 32000 * number + len(wave)] = wave
        start, end = 2.0 * number, 2.0 * number + len(wave) / 16000
        segments.append(kaldi.Utterance(each.utt_id, each.speaker, each.text, "tape.wav", start, end, recording="tape"))
        lines.append(f"side 2 {each.speaker} {start:.3f} {end:.3f} {each.text}\n")
    soundfile.write("tape.wav", tape, 16000)
    kaldi.write(segments, Path("data/tape"))
    Path("data/tape/reco2file_and_channel").write_text("tape side 2\n")
    Path("tape.stm").write_text("".join(lines))
    run(decode, "--config conf/decode_ctc.yaml --exp exp/train_encoder --data data/tape --out decoded")
    run(align, "--exp exp/train_encoder --data data/tape --hyp decoded --out aligned")
    ((file, found),) = words().items()
    assert file == "side" and [each[1] for each in found] == sorted(each[1] for each in found)
    run(score, "--config conf/score.yaml --ref tape.stm --hyp aligned/words.ctm --out scored")
    run(score, "--config conf/score.yaml --ref dump/test --hyp decoded")
    rates = [
        Path(folder, "result.txt").read_text().split("Sum/Avg")[1].split("|")[1:3] for folder in ("scored", "decoded")
    ]
    assert rates[0] == rates[1]
    run(align, "--exp exp/train_encoder --data dump/test --hyp decoded --recordings data/tape --out again")
    assert Path("again/words.ctm").read_text() == Path("aligned/words.ctm").read_text()
    assert Path("aligned/text").read_text() == f"side {' '.join(each[0] for each in found)}\n"
    assert len(Path("aligned/srt/side.srt").read_text().split("-->")) > len(utterances)


def test_without_an_experiment_words_are_spread(work: Path) -> None:
    run(align, "--data dump/test --out aligned --formats srt")
    assert sorted(path.name for path in Path("aligned").iterdir()) == ["not_aligned", "srt", "text"]


def test_what_cannot_be_aligned_is_listed(work: Path) -> None:
    utt_id = kaldi.read(Path("dump/test"))[0].utt_id
    Path("hyp").write_text(f"{utt_id} " + "red " * 200 + "\n")
    run(align, f"{OPTIONS} --hyp hyp")
    assert Path("aligned/not_aligned").read_text().startswith(f"{utt_id}\tits ")
    assert len(words()[utt_id]) == 200


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--hyp none", "none: "),
        ("--hyp exp/train_encoder", "exp/train_encoder: no hyp.*.jsonl in it"),
        ("--recordings data/train", "data/train: 12 utterances are not in it, such as s0-test00"),
        ("--exp exp", "exp: not an experiment"),
    ],
)
def test_mistakes_are_one_sentence(work: Path, capsys: pytest.CaptureFixture[str], options: str, says: str) -> None:
    assert says in refused(capsys, "align", f"{OPTIONS} {options}".split())[0]
