"""From a batch to n-best lists, with a model made of toys."""

from dataclasses import replace

import pytest
import torch
import toy_speech_llm as toys
from transformers import LlamaConfig, LlamaForCausalLM

from asrllm.batch import Batch, pad
from asrllm.decode.ctc_search import CtcGreedyConfig, CtcPrefixConfig
from asrllm.decode.decoder import DecodeConfig, Decoder
from asrllm.decode.joint import Companions, JointConfig, token_limit
from asrllm.decode.speculative import SpeculativeConfig
from asrllm.text.prompt import Prompt


class Letters:
    """Unit n is the n-th letter."""

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(ord("a") + each) for each in ids)


class Toy:
    """Reads the prefix and the posteriors off the samples."""

    llm_end_ids = [2]
    llm_tokenizer = ctc_tokenizer = Letters()

    def __init__(self) -> None:
        config = LlamaConfig(
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            vocab_size=9,
            initializer_range=0.4,
        )
        self.llm = LlamaForCausalLM(config).eval()

    def encode(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(len(batch), 0, 1), torch.zeros(len(batch), dtype=torch.long)

    def heard(self, batch: Batch) -> None:
        return None

    def before(self) -> torch.Tensor:
        return torch.zeros(0, 16)

    def prefix(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        frames = batch.waves[:, : batch.waves.shape[1] // 1600 * 1600].unflatten(1, (-1, 1600))[..., :16]
        return frames, batch.wave_lens // 1600

    def ctc_log_probs(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        frames, lens = self.prefix(batch)
        return torch.log_softmax(frames[..., :9], dim=-1), lens


@pytest.fixture
def batch() -> Batch:
    waves, lens = pad([torch.randn(16000), torch.randn(48000), torch.randn(24000)])
    return Batch(["a", "b", "c"], ["", "", ""], waves, lens)


def test_ctc(batch: Batch) -> None:
    results = Decoder(Toy(), DecodeConfig(search=CtcGreedyConfig())).decode(batch)
    assert [each.utt_id for each in results] == ["a", "b", "c"]
    assert [each.seconds for each in results] == [1.0, 3.0, 1.5]
    for result in results:
        assert result.best.text == Letters().decode(result.best.tokens)
        assert result.best.scores == {"ctc": result.best.score}


def test_beam_keeps_n_best_within_the_limit(batch: Batch) -> None:
    search = JointConfig(beam=4, nbest=3, tokens_per_second=10.0)
    for result in Decoder(Toy(), DecodeConfig(search=search)).decode(batch):
        scores = [each.score for each in result.hypotheses]
        assert scores == sorted(scores, reverse=True) and len(scores) == 3
        assert all(len(each.tokens) + each.ended <= 10 * result.seconds for each in result.hypotheses)
        assert result.best.score == pytest.approx(
            result.best.scores["llm"] / (len(result.best.tokens) + result.best.ended), abs=1e-5
        )


def test_token_limit() -> None:
    config = JointConfig(tokens_per_second=10.0, max_tokens=50)
    assert [token_limit(seconds, config) for seconds in (0.0, 0.1, 1.01, 4.0, 9.0)] == [8, 8, 11, 40, 50]


def test_prefix_beam_keeps_n_best(batch: Batch) -> None:
    search = CtcPrefixConfig(beam=6, nbest=4)
    for result in Decoder(Toy(), DecodeConfig(search=search)).decode(batch):
        assert len({tuple(each.tokens) for each in result.hypotheses}) == 4
        for each in result.hypotheses:
            assert each.text == Letters().decode(each.tokens)
            assert each.scores == {"ctc": each.score}


class SomeHints:
    """Stands for a `HotwordPrompt`: utterances of other lengths have other hints, some have none."""

    def hints(self, log_probs: torch.Tensor, lens: torch.Tensor) -> tuple[list[list[int]], list[dict[str, int]]]:
        return [[7, 8, 9][: size % 4] for size in lens.tolist()], [{} for _ in lens]


@pytest.mark.parametrize("hinted", [False, True])
@pytest.mark.parametrize("search", [JointConfig(beam=1), JointConfig(beam=3, nbest=3), SpeculativeConfig()])
def test_the_prompt_is_read_once_and_all_batches_have_what_a_prompt_of_their_own_gives(
    search: JointConfig | SpeculativeConfig, hinted: bool
) -> None:
    """Against a decoder for each utterance, whose prompt has the hint written out."""
    torch.manual_seed(0)
    model = toys.model(toys.llama())
    model.language = replace(model.language, prompt=Prompt([30, 31, 33], [32], 39, line=2))
    batches = [toys.batch(sizes, [""] * len(sizes)) for sizes in ([16000, 9600], [12000], [8000, 14000, 11200])]
    hints, read = SomeHints(), []
    model.llm.base_model.register_forward_pre_hook(
        lambda _, args, given: read.append(given["past_key_values"].get_seq_length()), with_kwargs=True
    )
    kept = Decoder(model, DecodeConfig(search=search), Companions(hotword_prompt=hints if hinted else None))
    found = [result for batch in batches for result in kept.decode(batch)]
    assert read.count(0) == 1
    met = set()
    for row, result in zip([row for batch in batches for row in toys.rows_of(batch)], found, strict=True):
        hint = hints.hints(*model.ctc_log_probs(row))[0][0] if hinted else []
        met.add(len(hint))
        model.language = replace(model.language, prompt=Prompt([30, 31, *hint, 33], [32], 39))
        (fresh,) = Decoder(model, DecodeConfig(search=search)).decode(row)
        for one, other in zip(result.hypotheses, fresh.hypotheses, strict=True):
            assert one.tokens == other.tokens
            assert one.scores == pytest.approx(other.scores, abs=1e-5)
    assert len(met) > 1 or not hinted
