"""What a decoder says about an utterance, and the files it is kept in.

A decoding is a folder with shards `hyp.KofN.jsonl`, one utterance a line, joined by utterance id, never by line number.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from asrllm.console import UserError, write_atomically


@dataclass(frozen=True)
class Hypothesis:
    """One text with its scores, all natural logarithms."""

    text: str
    score: float  # what the search ranked by
    scores: dict[str, float] = field(default_factory=dict)  # component name -> unweighted sum over the tokens
    tokens: list[int] = field(default_factory=list)  # ids in the units of the search, without the end token
    ended: bool = True  # False where the token limit cut it


@dataclass(frozen=True)
class NBest:
    """The hypotheses of one utterance, best first; at least one."""

    utt_id: str
    seconds: float
    hypotheses: list[Hypothesis]
    counts: dict[str, int] = field(default_factory=dict)  # what the search did, such as lm_calls

    @property
    def best(self) -> Hypothesis:
        """The first hypothesis."""
        return self.hypotheses[0]


def shard_name(job: int, jobs: int) -> str:
    """File name of shard `job` (from 1) of `jobs`."""
    return f"hyp.{job}of{jobs}.jsonl"


def write_shard(results: Iterable[NBest], path: Path) -> None:
    """Write one shard, whole or not at all."""
    with write_atomically(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for result in results:
            stream.write(json.dumps(asdict(result), ensure_ascii=False) + "\n")


def read_decoding(folder: Path) -> dict[str, NBest]:
    """All shards of a decoding by utterance id.

    Raises:
        UserError: no shard, shards of different splits, a shard missing, a line cut off, an utterance given twice or
            without any hypothesis.
    """
    shards = {path: re.fullmatch(r"hyp\.(\d+)of(\d+)\.jsonl", path.name) for path in sorted(folder.glob("hyp.*.jsonl"))}
    splits = {int(match[2]) for match in shards.values() if match}
    if not splits:
        raise UserError(f"{folder}: no hyp.*.jsonl in it: run the decoding (stage 8) first")
    if len(splits) > 1:
        raise UserError(f"{folder}: shards of different splits {sorted(splits)}: delete the folder and decode again")
    jobs = splits.pop()
    missing = set(range(1, jobs + 1)) - {int(match[1]) for match in shards.values() if match}
    if missing:
        raise UserError(f"{folder}: {shard_name(min(missing), jobs)} is missing: run the decoding (stage 8) again")
    results: dict[str, NBest] = {}
    for path in shards:
        for number, line in enumerate(path.read_bytes().rstrip(b"\n").split(b"\n"), 1):
            if not line:  # a shard without utterances
                continue
            try:
                entry = json.loads(line.decode())
                result = NBest(**entry | {"hypotheses": [Hypothesis(**each) for each in entry["hypotheses"]]})
            except (ValueError, TypeError, KeyError) as fault:
                raise UserError(f"{path}: line {number}: not a result of a decoding ({fault}): decode again") from None
            if not result.hypotheses:
                raise UserError(f"{path}: line {number}: utterance {result.utt_id} has no hypothesis: decode again")
            if result.utt_id in results:
                raise UserError(f"{path}: line {number}: utterance {result.utt_id} is given twice: decode again")
            results[result.utt_id] = result
    return results
