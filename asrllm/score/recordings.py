"""Where the recordings of a set can be listened to: addresses of plain files of a Kaldi `wav.scp`."""

from pathlib import Path

from asrllm.score.transcripts import read_text


def links(folder: Path) -> dict[str, str]:
    """Utterance id -> address of its file, with its times where there are `segments`.

    Commands and places inside archives cannot be linked to and are left out.
    """
    if not (folder / "wav.scp").is_file():
        return {}
    files = {
        key: Path(value).resolve().as_uri()
        for key, value in read_text(folder / "wav.scp").items()
        if value and not value.endswith("|") and Path(value).is_file()
    }
    if not (folder / "segments").is_file():
        return files
    found = {}
    for utt_id, line in read_text(folder / "segments").items():
        recording, _, times = line.partition(" ")
        if recording in files and len(times.split()) == 2:
            found[utt_id] = f"{files[recording]}#t={','.join(times.split())}"
    return found
