"""The check of batch invariance finds what depends on batch mates, and nothing else."""

from pathlib import Path

import pytest
from toy_corpus import decode_options

from asrllm.analysis.invariance import check_batch_invariance
from asrllm.batch import Batch
from asrllm.bin import decode
from asrllm.console import UserError
from asrllm.data import kaldi
from asrllm.hypothesis import Hypothesis, NBest


def listener(strange: str, text: bool, step: float):
    """Recognises how long an utterance is; of utterance `strange` also how long its batch is."""

    def recognise(batch: Batch) -> list[NBest]:
        found = []
        for utt_id, length in zip(batch.utt_ids, batch.wave_lens.tolist(), strict=True):
            padded = (batch.waves.shape[1] != length) * (utt_id == strange)
            said = f"{length} {padded if text else 0}"
            found.append(NBest(utt_id, 1.0, [Hypothesis(said, -20.0 - step * padded)]))
        return found

    return recognise


def test_names_the_utterance_that_differs(work: Path) -> None:
    utterances = kaldi.read(Path("dump/test"))
    name = min(utterances, key=lambda each: each.seconds or 0.0).utt_id
    assert check_batch_invariance(utterances, listener(name, False, 1e-4)) == pytest.approx(5e-6)
    with pytest.raises(UserError, match=rf"^1 of {len(utterances)} utterances .* alone: {name} .other text.$"):
        check_batch_invariance(utterances, listener(name, True, 0.0))
    with pytest.raises(UserError, match=rf"{name} .scores differ by 5.0e-03.$"):
        check_batch_invariance(utterances, listener(name, False, 0.1))


def test_joint_decoding_passes(work: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    joint = ["--set", "search.weights={ctc: 0.5}", "--check_batch_invariance", "12"]
    decode.main([*decode_options("decode_beam", "exp/train_joint", "never"), *joint])
    assert "alone and in shuffled batches: the same texts" in caplog.text
    assert not Path("never").exists()
