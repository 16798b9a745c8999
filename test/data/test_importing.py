"""What people have, read into utterances and written back out."""

import json
from pathlib import Path

import kaldiio
import pytest
import soundfile
import torch

from asrllm.bin import export_data, import_data
from asrllm.console import UserError
from asrllm.data import audio, kaldi
from asrllm.data.validate import check
from asrllm.models.frontend import FrontendConfig, LogMel


@pytest.fixture
def corpus(real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three pieces of a real recording: corpus/anna/0.wav, corpus/anna/1.flac, corpus/bob/2.ogg, each with a text."""
    monkeypatch.chdir(tmp_path)
    wave, rate = soundfile.read(real_data / "misc" / "jfk.flac")
    for number, place in enumerate(("anna/0.wav", "anna/1.flac", "bob/2.ogg")):
        path = tmp_path / "corpus" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, wave[number * rate :][:rate], rate)
        path.with_suffix(".txt").write_text(f"\ufeffask  not\n{number}\n", encoding="utf-8")
    return tmp_path / "corpus"


def imported(*words: str | Path) -> list[tuple[str, str, str]]:
    import_data.main([*map(str, words)])
    out = Path(words[2])
    assert check(out).problems == []
    return [(each.utt_id, each.speaker, each.text) for each in kaldi.read(out)]


EXPECTED = [("anna-0", "anna", "ask not 0"), ("anna-1", "anna", "ask not 1"), ("bob-2", "bob", "ask not 2")]


def test_a_folder(corpus: Path) -> None:
    assert imported("folder", corpus, "data/train") == EXPECTED


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_tables_there_and_back(corpus: Path, suffix: str) -> None:
    imported("folder", corpus, "data/train")
    export_data.main(["table", "data/train", f"out{suffix}"])
    kind = "jsonl" if suffix == ".jsonl" else "table"
    assert imported(kind, f"out{suffix}", "data/again") == EXPECTED
    assert kaldi.read(Path("data/again")) == kaldi.read(Path("data/train"))


def test_segments_through_json_lines(corpus: Path) -> None:
    rows = [
        {"audio_filepath": "anna/0.wav", "text": "x", "offset": n / 4, "duration": 0.25, "id": f"u{n}"}
        for n in range(3)
    ]
    (corpus / "nemo.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(imported("jsonl", corpus / "nemo.json", "data/cut", "--audio", "audio_filepath")) == 3
    pieces = kaldi.read(Path("data/cut"))
    assert [(each.start, each.end) for each in pieces] == [(0.0, 0.25), (0.25, 0.5), (0.5, 0.75)]
    export_data.main(["table", "data/cut", "cut.jsonl"])
    imported("jsonl", "cut.jsonl", "data/again")
    for before, after in zip(pieces, kaldi.read(Path("data/again")), strict=True):
        assert torch.equal(audio.load(before, 16000), audio.load(after, 16000))


def test_shards_there_and_back(corpus: Path) -> None:
    imported("folder", corpus, "data/train")
    for _ in range(2):
        export_data.main(["shards", "data/train", "shards", "--suffix", "wav", "--shard_mb", "1"])
    assert imported("shards", "shards", "data/again") == EXPECTED
    pairs = zip(kaldi.read(Path("data/train")), kaldi.read(Path("data/again")), strict=True)
    for before, after in pairs:
        assert (audio.load(before, 16000) - audio.load(after, 16000)).abs().max() <= 1 / 32768
    imported("folder", corpus / "anna", "data/less")
    with pytest.raises(UserError, match="shards: holds 3 utterances of another run, data/less has 2"):
        export_data.main(["shards", "data/less", "shards"])


def test_features_are_those_of_the_front_end(corpus: Path) -> None:
    imported("folder", corpus, "data/train")
    export_data.main(["features", "data/train", "feats", "--mels", "40"])
    features = kaldiio.load_scp("feats/feats.scp")
    frontend = LogMel(FrontendConfig(mels=40, specaugment=None)).eval()
    for each in kaldi.read(Path("data/train")):
        wave = audio.load(each, 16000)
        assert torch.equal(
            torch.from_numpy(features[each.utt_id].copy()), frontend(wave[None], torch.tensor([len(wave)]))[0][0]
        )


def test_lhotse(corpus: Path) -> None:
    lhotse = pytest.importorskip("lhotse")
    path = corpus / "anna" / "0.wav"
    recording = lhotse.Recording.from_file(path, recording_id="rec 0")
    cuts = [
        lhotse.SupervisionSegment(f"u {n}", "rec 0", n / 2, 0.5, text=f"words {n}", speaker=["anna", None][n])
        for n in range(2)
    ]
    lhotse.RecordingSet.from_recordings([recording]).to_file("recordings.jsonl.gz")
    lhotse.SupervisionSet.from_segments(cuts).to_file("supervisions.jsonl.gz")
    words = ["lhotse", "supervisions.jsonl.gz", "data/train", "--recordings", "recordings.jsonl.gz"]
    import_data.main(words)
    assert [(each.utt_id, each.speaker, each.text, each.start) for each in kaldi.read(Path("data/train"))] == [
        ("u_0", "anna", "words 0", 0.0),
        ("u_1", "unknown", "words 1", 0.5),
    ]


@pytest.mark.parametrize(
    ("kind", "name", "content", "words"),
    [
        (
            "table",
            "t.csv",
            b"path,text\na.wav,x\n",
            "t.csv: line 1: no field 'audio' among path, text: name it with --audio",
        ),
        ("table", "t.csv", b"audio,words\na.wav,x\n", "no field 'text' among audio, words: name it with --text"),
        ("table", "t.csv", b"audio,text\na.wav,\n", "line 2: text is empty"),
        ("table", "t.csv", b"audio,text\n,x\n", "line 2: audio is empty"),
        ("table", "t.csv", b'audio,text\n"a.wav,x\n', "not a readable table in UTF-8"),
        ("table", "t.csv", b"audio,text\na.wav,caf\xe9\n", "not a readable table in UTF-8"),
        ("table", "t.csv", b"", "no field 'audio' among nothing"),
        ("table", "t.csv/a", b"", "t.csv: cannot be read: Is a directory"),
        ("table", "t.csv", b"audio,text\n", "train: the corpus has no utterance for it"),
        ("table", "t.csv", b"audio,text,id\na.wav,x,u\nb.wav,y,u\n", "two utterances with the id u"),
        ("jsonl", "t.json", b"[1]\n", "line 1: '[1]' is no object"),
        ("jsonl", "t.json", b"{\n", "not JSON lines in UTF-8"),
        ("jsonl", "t.json", b"", "the corpus has no utterance"),
        ("jsonl", "t.json", b'{"audio": "a.wav", "text": "x"}\n{"audio": "a.wav"}\n', "line 2: text is empty"),
        ("folder", "f/a.txt", b"x", "holds no audio file"),
        ("folder", "f/a.wav", b"", "a.wav: no transcript a.txt beside it"),
        ("shards", "s/x", b"", "holds no whole set of shards"),
        ("librispeech", "l/x", b"", "holds no <speaker>/<chapter>/*.trans.txt"),
        ("aishell", "a/x", b"", "not a readable table of transcripts"),
        ("commonvoice", "c/x", b"", "train.tsv: not a table of Common Voice"),
        ("commonvoice", "c/train.tsv", b"client_id\tpath\n1\ta.mp3\n", "line 2: expected client_id, path and sentence"),
    ],
)
def test_what_cannot_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str, content: bytes, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        import_data.main([kind, name if "/" not in name else name.split("/")[0], "data/train"])
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("words", ["folder none data", "table none data", "lhotse t.csv data --recordings none"])
def test_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.csv").touch()
    with pytest.raises(UserError, match=r"^none: no such file or folder$"):
        import_data.main(words.split())


@pytest.mark.parametrize("text", [b"", b" \n", b"caf\xe9"])
def test_folders_with_texts_that_are_none(corpus: Path, text: bytes) -> None:
    (corpus / "anna" / "0.txt").write_bytes(text)
    with pytest.raises(UserError, match=r"0.txt: (an empty transcript|not UTF-8)"):
        import_data.main(["folder", str(corpus), "data/train"])


def test_what_cannot_be_exported(corpus: Path) -> None:
    imported("folder", corpus, "data/train")
    with pytest.raises(UserError, match="expected a name that ends in .csv, .tsv or .jsonl"):
        export_data.main(["table", "data/train", "out.xlsx"])
