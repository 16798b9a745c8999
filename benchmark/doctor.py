"""What the data doctor takes where the corpus has ten million utterances: time and memory of the program itself.

    python benchmark/doctor.py [--utterances 10000000] [--folder /tmp/corpus]

Makes a Kaldi directory whose `segments` cut recordings of 10,000 utterances each; their headers are real, their samples
are zeros that take no room on a disk that knows sparse files. Every sentence is another and every rule is kept;
--listen, which decodes all audio, is not given.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import wave
from pathlib import Path

import numpy as np

SPEAKERS, IN_RECORDING, AT_ONCE, RATE = 1000, 10_000, 100_000, 8000
SENTENCE = "she took the letter from his hand and read it twice before anyone in the room could say a word"


def make(folder: Path, count: int) -> None:
    """Tables of `count` utterances of 1 to 17 s, 14 letters a second."""
    (folder / "data").mkdir(parents=True)
    draw = np.random.default_rng(0)
    names = ("text", "utt2spk", "segments")
    tables = {name: (folder / "data" / name).open("w") for name in names}
    sources = []
    for first in range(0, count, IN_RECORDING):
        size = min(IN_RECORDING, count - first)
        seconds = draw.normal(11, 4, size).clip(1, 17).round(2)
        ends = seconds.cumsum()
        recording = f"r{first // IN_RECORDING:06}"
        _silence(folder / f"{recording}.wav", float(ends[-1]) + 1)
        sources.append(f"{recording} {folder}/{recording}.wav\n")
        numbers = range(first, first + size)
        ids = [f"s{number * SPEAKERS // count:03}-{number:08}" for number in numbers]
        begins = zip(ids, ends - seconds, ends, strict=True)
        tables["segments"].writelines(f"{utt_id} {recording} {begin:.2f} {end:.2f}\n" for utt_id, begin, end in begins)
        tables["utt2spk"].writelines(f"{utt_id} {utt_id[:4]}\n" for utt_id in ids)
        long = zip(ids, numbers, (seconds * 14 // 5).astype(int).tolist(), strict=True)
        tables["text"].writelines(f"{utt_id} {_sentence(number, words)}\n" for utt_id, number, words in long)
    for table in tables.values():
        table.close()
    (folder / "data" / "wav.scp").write_text("".join(sources))


def _sentence(number: int, words: int) -> str:
    """Another for each number, spelled in the letters of all."""
    words_of_all = SENTENCE.split()
    name = "".join("abcdefghij"[int(digit)] for digit in str(number))
    return " ".join([name, *(words_of_all[(number + place) % len(words_of_all)] for place in range(words - 1))])


def _silence(path: Path, seconds: float) -> None:
    with wave.open(str(path), "wb") as header:
        header.setparams((1, 2, RATE, 0, "NONE", "not compressed"))
        header.setnframes(int(seconds * RATE))
        header.writeframesraw(b"")
    size = int(seconds * RATE) * 2
    content = bytearray(path.read_bytes()[:44])
    content[4:8], content[40:44] = (36 + size).to_bytes(4, "little"), size.to_bytes(4, "little")
    path.write_bytes(content)
    os.truncate(path, 44 + size)


def parser() -> argparse.ArgumentParser:
    """Options of the benchmark."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--utterances", type=int, default=10_000_000, help="how many (10 million)")
    options.add_argument("--folder", type=Path, help="where to make it, or where it lies; none: a temporary one")
    return options


def main() -> None:
    """Make the directory, run the doctor, read its report."""
    args = parser().parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary) / "corpus"
        if not folder.is_dir():
            make(folder, args.utterances)
        tables = sum(path.stat().st_size for path in (folder / "data").iterdir())
        command = [sys.executable, "-m", "asrllm.bin.check_data", str(folder / "data"), "--doctor", str(folder / "out")]
        begin = time.perf_counter()
        process = subprocess.Popen(command)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begin
        (report,) = json.loads((folder / "out" / "report.json").read_text())
        assert report["utterances"] == args.utterances
        print(
            f"{args.utterances} utterances, tables of {tables / 1e9:.2f} GB, exit {os.waitstatus_to_exitcode(status)}"
        )
        print(f"{usage.ru_utime + usage.ru_stime:.0f} processor s, {wall:.0f} s, {usage.ru_maxrss / 1e6:.2f} GB")
        found = {kind: each["count"] for kind, each in report["findings"].items()}
        print(f"{report['speakers']} speakers, {report['hours']:.0f} h, found: {found}")


if __name__ == "__main__":
    main()
