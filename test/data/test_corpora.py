"""Archives fetched from a server of our own: whole, in pieces, spoilt, absent; sets written where they changed."""

import functools
import hashlib
import http.server
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from asrllm.console import UserError
from asrllm.data import corpora, kaldi
from asrllm.data.corpora import Archive
from asrllm.data.kaldi import Utterance


class Server(http.server.SimpleHTTPRequestHandler):
    """Files of a folder; it knows Range as most servers do, and can break off in the middle."""

    asked: list[str] = []
    breaks_after = 0  # bytes

    def do_GET(self) -> None:
        data = Path(self.translate_path(self.path)).read_bytes()
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        Server.asked.append(self.headers.get("Range") or "all")
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start : Server.breaks_after or None])

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    """An archive on a server: corpus-1/wav/s1.tar with a recording in it, corpus-1/text."""
    source = tmp_path / "corpus-1"
    (source / "wav").mkdir(parents=True)
    (tmp_path / "s1").mkdir()
    (tmp_path / "s1" / "a.wav").write_text("sound")
    (source / "text").write_text("a words\n" * 1000)
    with tarfile.open(source / "wav" / "s1.tar", "w") as tar:
        tar.add(tmp_path / "s1", "s1")
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz") as tar:
        tar.add(source, "corpus-1")
    handler = functools.partial(Server, directory=str(tmp_path))
    Server.asked, Server.breaks_after = [], 0
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        data = (tmp_path / "c.tar.gz").read_bytes()
        url = f"http://127.0.0.1:{server.server_port}/c.tar.gz"
        checksum = f"md5:{hashlib.md5(data).hexdigest()}"
        yield Archive(url, "1 kB", "wav", len(data), checksum, top="corpus-1", inner="corpus-1/wav/*.tar")
        server.shutdown()
        thread.join()


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_fetched_once_and_unpacked_whole(archive: Archive, tmp_path: Path) -> None:
    corpus = tmp_path / "deep" / "corpus"
    with pytest.raises(UserError, match=r"wav: not there: name .* --corpus, or fetch http.*c.tar.gz \(1 kB\) into .*"):
        corpora.provide(corpus, [archive], download=False)
    assert not corpus.exists()
    corpora.provide(corpus, [archive], download=True)
    assert files(corpus) == {"text", "wav/s1/a.wav"}
    corpora.provide(corpus, [archive], download=True)
    assert Server.asked == ["all"]


def test_a_corpus_that_is_not_published_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none: no such folder: name the corpus' folder with --corpus"):
        corpora.provide(tmp_path / "none", [], download=False)


def test_what_was_there_is_kept(archive: Archive, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "text").write_text("mine")
    corpora.provide(corpus, [archive], download=True)
    assert (corpus / "text").read_text() == "mine" and (corpus / "wav/s1/a.wav").exists()


def test_a_broken_download_goes_on(archive: Archive, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    Server.breaks_after = 100
    with pytest.raises(UserError, match=r"cannot be fetched \(.*\); it has 1 kB: start again to go on"):
        corpora.provide(corpus, [archive], download=True)
    assert files(corpus) == {"c.tar.gz.part"}
    Server.breaks_after = 0
    corpora.provide(corpus, [archive], download=True)
    assert Server.asked == ["all", "bytes=100-"] and files(corpus) == {"text", "wav/s1/a.wav"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"checksum": "sha256:00"}, "found the sha256 .*, expected 00: it is deleted, start again"),
        ({"url": "http://127.0.0.1:9/c.tar.gz"}, "cannot be fetched .*Connection refused"),
        ({"bytes": 10**15}, "GB are free, c.tar.gz wants 2200000.0"),
        ({"holds": "nothing"}, "found no nothing in it"),
    ],
)
def test_what_is_wrong_is_said(archive: Archive, tmp_path: Path, changes: dict[str, str | int], words: str) -> None:
    wrong = Archive(**{**archive.__dict__, **changes})
    with pytest.raises(UserError, match=words):
        corpora.provide(tmp_path / "corpus", [wrong], download=True)
    assert files(tmp_path / "corpus") <= {"c.tar.gz.part"}


@pytest.mark.parametrize("name", ["../outside.wav", "link"])
def test_an_archive_that_reaches_out_is_refused(archive: Archive, tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz") as tar:
        if name == "link":
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, "../.."
            tar.addfile(link)
        tar.add(tmp_path / "s1" / "a.wav", name if name != "link" else "link/in/outside.wav")
    evil = Archive(archive.url, "1 kB", "wav")
    with pytest.raises(UserError, match="cannot be unpacked"):
        corpora.provide(tmp_path / "in" / "corpus", [evil], download=True)
    assert not (tmp_path / "in" / "outside.wav").exists()


def test_unchanged_sets_are_not_touched(tmp_path: Path) -> None:
    sets = {"train": [Utterance("b", "s", "two", "b.wav"), Utterance("a", "s", "one", "a.wav")]}
    corpora.write(sets, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "train").iterdir()}
    corpora.write(sets, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "train").iterdir()} == before
    corpora.write({"train": sets["train"][:1]}, tmp_path)
    assert [each.text for each in kaldi.read(tmp_path / "train")] == ["two"]
    with pytest.raises(UserError, match="dev: the corpus has no utterance for it"):
        corpora.write({"dev": []}, tmp_path)


def test_held_out_speakers_are_whole() -> None:
    utterances = [Utterance(f"{speaker}{n}", speaker, "x", "x.wav") for speaker in "abcd" for n in range(5)]
    kept, out = corpora.held_out(utterances, 0.3)
    assert {each.speaker for each in kept} == {"a", "b"} and {each.speaker for each in out} == {"c", "d"}
    assert len(out) == 10
    assert corpora.held_out(utterances[:5], 0.3) == (utterances[:5], [])
