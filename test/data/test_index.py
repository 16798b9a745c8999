"""A directory through its index against the directory read whole."""

from pathlib import Path

import numpy as np
import pytest

from asrllm.console import UserError
from asrllm.data import index, kaldi, measures
from asrllm.data.index import Utterances
from asrllm.data.kaldi import Utterance


def formatted(folder: Path, count: int = 30, text: str = "wörter {}") -> list[Utterance]:
    """Tables as formatting writes them; nobody opens the archive."""
    made = [
        Utterance(
            f"spk-{n:02}",
            "spk",
            text.format("x" * (n % 7)).strip(),
            f"{folder}/audio.ark:{9 + 100 * n}",
            seconds=n + 0.5,
        )
        for n in range(count)
    ]
    kaldi.write(made, folder)
    index.write(folder)
    return made


@pytest.mark.parametrize("text", ["wörter {}", ""])
def test_each_utterance_is_that_of_the_tables(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "dump"
    formatted(folder, text=text)
    whole, found = kaldi.read(folder), index.read(folder)
    assert index.place(folder) is not None
    assert list(found) == whole
    assert list(found.texts()) == [each.text for each in whole]
    np.testing.assert_array_equal(found.seconds, [each.seconds for each in whole])


def test_a_choice_of_a_choice(tmp_path: Path) -> None:
    made = formatted(tmp_path / "dump")
    for found in (index.read(tmp_path / "dump"), Utterances.of(made)):
        some = found.take(np.array([3, 5, 8, 20])).take(np.array([1, 3]))
        assert list(some) == [made[5], made[20]]
        assert some.seconds.tolist() == [5.5, 20.5] and len(some) == 2


def test_tables_that_were_changed_are_read_whole(tmp_path: Path) -> None:
    folder = tmp_path / "dump"
    formatted(folder)
    lines = (folder / "text").read_text().splitlines()
    (folder / "text").write_text("".join(f"{line} more\n" for line in lines))
    assert index.place(folder) is None
    assert list(index.read(folder)) == kaldi.read(folder)


def test_lines_out_of_step_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "dump"
    formatted(folder)
    text = (folder / "text").read_text()
    (folder / "text").write_text(text.replace("spk-04", "spk-99"))
    with pytest.raises(
        UserError, match="line 5 is of spk-04 in wav.scp and of spk-99 in text: format the directory again"
    ):
        index.read(folder)[4]


def test_measures_of_many_are_kept_until_something_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "MANY", 10)
    folder = tmp_path / "dump"
    made = formatted(folder)
    seen: list[str] = []

    def measure(text: str) -> tuple[int, int]:
        seen.append(text)
        return len(text), 2 * len(text)

    wanted = [[len(each.text), 2 * len(each.text)] for each in made]
    for keys, keep, measured in (
        (("a",), False, True),
        (("a",), True, True),
        (("a",), True, False),
        (("b",), True, True),
        (("a",), True, False),
    ):
        seen.clear()
        values = measures.of_texts(index.read(folder), measure, folder, *keys, keep=keep)
        assert values.tolist() == wanted and len(seen) == measured * len(made)
    monkeypatch.setattr(measures, "MANY", 100)
    seen.clear()
    measures.of_texts(index.read(folder), measure, folder, "a", keep=True)
    assert len(seen) == len(made)
