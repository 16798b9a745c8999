"""Shards of a decoding: complete, mixed, missing, doubled; text that holds line ends of Unicode."""

from pathlib import Path

import pytest

from asrllm.console import UserError
from asrllm.hypothesis import Hypothesis, NBest, read_decoding, shard_name, write_shard

RESULTS = [
    NBest(f"u{n}", 1.5, [Hypothesis(f"text {n}", -1.0, {"llm": -2.0}, [4, 5], n % 2 == 0), Hypothesis("", -3.0)])
    for n in range(5)
]


def write(folder: Path, jobs: int) -> None:
    for job in range(1, jobs + 1):
        write_shard(RESULTS[job - 1 :: jobs], folder / shard_name(job, jobs))


@pytest.mark.parametrize("jobs", [1, 2, 12])  # with 12 some shards are empty, and names do not sort as numbers do
def test_all_shards_read_back_equal(tmp_path: Path, jobs: int) -> None:
    write(tmp_path, jobs)
    assert read_decoding(tmp_path) == {result.utt_id: result for result in RESULTS}
    assert read_decoding(tmp_path)["u3"].best is not RESULTS[3].best


@pytest.mark.parametrize("text", ["a\u2028b", "a\u2029b\x85c\x0bd", 'tab\tand "quotes" \\ \u732b', "line\nend\r\n"])
def test_line_ends_of_unicode_stay_inside_their_text(tmp_path: Path, text: str) -> None:
    results = [NBest("u1", 1.0, [Hypothesis(text, 0.0)]), NBest("u2", 1.0, [Hypothesis("b", 0.0)])]
    write_shard(results, tmp_path / shard_name(1, 1))
    assert [each.best.text for each in read_decoding(tmp_path).values()] == [text, "b"]


def spoil_mixed(folder: Path) -> None:
    write_shard(RESULTS, folder / shard_name(1, 1))


def spoil_missing(folder: Path) -> None:
    (folder / shard_name(2, 3)).unlink()


def spoil_doubled(folder: Path) -> None:
    write_shard(RESULTS[:1], folder / shard_name(3, 3))


def spoil_cut(folder: Path) -> None:
    whole = (folder / shard_name(1, 3)).read_text()
    (folder / shard_name(1, 3)).write_text(whole[: len(whole) - 20])


def spoil_other(folder: Path) -> None:
    (folder / shard_name(1, 3)).write_text('{"utt_id": "u0"}\n')


def spoil_bytes(folder: Path) -> None:
    (folder / shard_name(1, 3)).write_bytes(b'{"utt_id": "caf\xe9"}\n')


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_mixed, r"shards of different splits \[1, 3\]: delete the folder and decode again"),
        (spoil_missing, "hyp.2of3.jsonl is missing: run the decoding .stage 8. again"),
        (spoil_doubled, "hyp.3of3.jsonl: line 1: utterance u0 is given twice: decode again"),
        (spoil_cut, "hyp.1of3.jsonl: line 2: not a result of a decoding"),
        (spoil_other, "hyp.1of3.jsonl: line 1: not a result of a decoding"),
        (spoil_bytes, "hyp.1of3.jsonl: line 1: not a result of a decoding .*utf-8"),
    ],
)
def test_what_is_refused(tmp_path: Path, spoil, said: str) -> None:
    write(tmp_path, 3)
    spoil(tmp_path)
    with pytest.raises(UserError, match=said):
        read_decoding(tmp_path)


def test_no_shard_at_all(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=r"no hyp.\*.jsonl in it: run the decoding \(stage 8\) first"):
            read_decoding(folder)


def test_a_fault_while_decoding_leaves_no_shard(tmp_path: Path) -> None:
    def results():
        yield RESULTS[0]
        raise ValueError

    with pytest.raises(ValueError):
        write_shard(results(), tmp_path / shard_name(1, 1))
    assert list(tmp_path.iterdir()) == []
