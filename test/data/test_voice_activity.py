"""Speech in long recordings: blocks against the whole file, parts against Silero, one recipe to its end."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
import torch
from toy_corpus import refused

from asrllm.bin import align, decode, score, segment
from asrllm.data import audio, kaldi, voice_activity
from asrllm.data.voice_activity import SegmentConfig, Silero, blocks, merge


class Loudness(Silero):
    """Stands in for the network: a window is speech where it is loud; pauses part, nothing is padded."""

    def __init__(self) -> None:
        pass

    def start(self) -> voice_activity.Detector:
        return lambda window: float(window.square().mean() > 1e-4)

    def part(self, probabilities: list[float], samples: int, config: SegmentConfig) -> list[tuple[float, float]]:
        loud = [place for place, each in enumerate(probabilities) if each]
        pause = config.min_silence_seconds / 0.032
        starts = [loud[0]] + [two for one, two in zip(loud, loud[1:], strict=False) if two - one > pause]
        ends = [one for one, two in zip(loud, loud[1:], strict=False) if two - one > pause] + [loud[-1]]
        return [(0.032 * max(0, one - 2), 0.032 * (two + 3)) for one, two in zip(starts, ends, strict=True)]


def run(program: ModuleType, line: str) -> None:
    program.main(line.split())


def noise(path: Path, seconds: float, rate: int, channels: int = 1) -> kaldi.Utterance:
    samples = np.random.default_rng(0).standard_normal((round(seconds * rate), channels)) * 0.1
    soundfile.write(path, samples, rate)
    return kaldi.Utterance("n", "n", "", str(path), channel=channels)


@pytest.mark.parametrize(("rate", "seconds"), [(44100, 7.3), (8000, 6.0), (16000, 2.0)])
def test_blocks_are_the_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: int, seconds: float) -> None:
    monkeypatch.setattr(voice_activity, "BLOCK_SECONDS", 2)
    recording = noise(tmp_path / "n.wav", seconds, rate, 2)
    pieces = list(blocks(recording))
    assert [len(each) for each in pieces[:-1]] == [32000] * (len(pieces) - 1) and len(pieces) == -(-seconds // 2)
    torch.testing.assert_close(torch.cat(pieces), audio.load(recording, 16000), atol=1e-5, rtol=0)


def test_never_more_than_a_block_is_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    read = audio.load_source

    def spy(*arguments: object) -> torch.Tensor:
        wave = read(*arguments)  # type: ignore[arg-type]
        sizes.append(len(wave) / 16000)
        return wave

    monkeypatch.setattr(audio, "load_source", spy)
    recording = noise(tmp_path / "n.wav", 400, 16000)
    assert sum(len(block) for block in blocks(recording)) == 400 * 16000
    assert max(sizes) == 62 and len(sizes) == 7


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the kernel does not tell a process' peak memory")
def test_peak_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    peaks = []
    code = (
        "import re, sys; from asrllm.data import kaldi, voice_activity as v; "
        "n = sum(len(b) for b in v.blocks(kaldi.Utterance('n', 'n', '', sys.argv[1]))); "
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    )
    for minutes in (3, 40):
        noise(tmp_path / "n.wav", 60.0 * minutes, 16000)
        line = [sys.executable, "-c", code, str(tmp_path / "n.wav")]
        peaks.append(int(subprocess.run(line, check=True, capture_output=True, text=True).stdout) / 1024)
    assert peaks[1] - peaks[0] < 20  # the wave alone is 146 MB


def test_close_segments_are_merged_up_to_the_longest() -> None:
    config = SegmentConfig(merge_gap_seconds=0.5, max_seconds=5.0)
    assert merge([(0, 1), (1.5, 2), (2.6, 3), (3.1, 6), (6, 7.9), (8, 8.2)], config) == [
        (0, 2),  # the pause after it is too long
        (2.6, 6),  # longer would be too long
        (6, 8.2),
    ]
    assert merge([], config) == []


def test_equals_silero_on_real_speech(real_data: Path, tmp_path: Path) -> None:
    """The recording three times over, so that it is read in two blocks; the network hears one stream."""
    silero = pytest.importorskip("silero_vad")
    wave = audio.load_source(str(real_data / "misc/jfk.flac"), 16000).repeat(7)
    soundfile.write(tmp_path / "long.wav", wave.numpy(), 16000, subtype="FLOAT")
    recording = kaldi.Utterance("long", "long", "", str(tmp_path / "long.wav"))
    found = voice_activity.segment(recording, Silero(), SegmentConfig(merge_gap_seconds=0.0, max_seconds=4.0))
    theirs = silero.get_speech_timestamps(
        wave, silero.load_silero_vad(), min_silence_duration_ms=300, speech_pad_ms=200, max_speech_duration_s=4.0
    )
    assert [(round(each.start * 16000), round(each.end * 16000)) for each in found] == [
        (each["start"], each["end"]) for each in theirs
    ]
    assert len(found) > 20 and all(each.seconds <= 4.0 for each in found)


def test_a_long_recording_is_decoded_and_its_times_are_joined(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy test set on one tape with pauses between: found, recognised, aligned, and scored as one text."""
    monkeypatch.setattr(segment, "Silero", Loudness)
    monkeypatch.setattr(voice_activity, "BLOCK_SECONDS", 4)
    utterances = kaldi.read(Path("dump/test"))
    silence = torch.zeros(16000)
    waves = [piece for each in utterances for piece in (audio.load(each, 16000), silence)]
    Path("tapes/jane").mkdir(parents=True)
    soundfile.write("tapes/jane/side a.flac", torch.cat(waves).numpy(), 16000)
    soundfile.write("tapes/quiet.wav", np.full(16000, 0.1) * (np.arange(16000) < 600), 16000)
    Path("conf/segment.yaml").write_text("merge_gap_seconds: 0.0\nmin_silence_seconds: 0.5\n")
    segment.main(["--config", "conf/segment.yaml", "--recordings", "tapes", "--out", "data/tapes"])
    found = [each for each in kaldi.read(Path("data/tapes")) if each.speaker == "jane"]
    assert len(found) == len(utterances) and {each.recording for each in found} == {"jane-side_a"}
    run(decode, "--config conf/decode_ctc.yaml --exp exp/train_encoder --data data/tapes --out tapes/hyp")
    run(align, "--exp exp/train_encoder --data data/tapes --hyp tapes/hyp --out tapes/times")
    Path("tapes/text").write_text(f"jane-side_a {' '.join(each.text for each in utterances)}\n")
    run(score, "--config conf/score.yaml --ref tapes/text --hyp tapes/times/text --out tapes/scores")
    run(score, "--config conf/score.yaml --ref dump/test --hyp exp/train_encoder/decode_ctc/test")
    rates = [
        float(Path(folder, "result.txt").read_text().split("Sum/Avg")[1].split("|")[2].split()[4])
        for folder in ("tapes/scores", "exp/train_encoder/decode_ctc/test")
    ]
    assert rates[0] <= rates[1] + 5 and Path("tapes/times/srt/jane-side_a.srt").is_file()


BAD = {
    "no audio": (lambda: Path("tapes").mkdir(), [], "tapes: holds no audio file"),
    "too short": (lambda: None, ["--set", "max_seconds=1"], "max_seconds is 1, expected a second more than twice"),
    "two channels": (lambda: noise(Path("dump/n.wav"), 1.0, 16000, 2), ["--recordings", "dump"], "found 2 channels"),
    "no YAML": (lambda: None, ["--config", "none.yaml"], "none.yaml: no such configuration file"),
}


@pytest.mark.parametrize("case", BAD)
def test_mistakes_are_one_sentence(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    spoil, options, says = BAD[case]
    Path("conf/segment.yaml").write_text("threshold: 0.5\n")
    monkeypatch.setattr(segment, "Silero", Loudness)
    spoil()
    line = ["--config", "conf/segment.yaml", "--recordings", "tapes", "--out", "new", *options]
    assert says in refused(capsys, "segment", line)[0]


def test_a_missing_package_is_one_sentence_with_the_command(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "silero_vad", None)
    Path("conf/segment.yaml").write_text("threshold: 0.5\n")
    line = ["--config", "conf/segment.yaml", "--recordings", "data", "--out", "new"]
    assert "install it with: pip install 'silero-vad>=6.2.3'" in refused(capsys, "segment", line)[0]
