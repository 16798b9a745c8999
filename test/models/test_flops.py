"""The FLOPs that each component says of itself against torch's counter, forward, and backward in every role."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from toy_speech_llm import SHORTENING, projector

from asrllm.batch import Batch
from asrllm.flops import Flops
from asrllm.models import llm as llms
from asrllm.models.attention_decoder import AttentionDecoder, DecoderConfig
from asrllm.models.conformer import Conformer, ConformerConfig
from asrllm.models.ctc import CtcHead
from asrllm.models.lora import LoraConfig, attach
from asrllm.models.posterior import PosteriorConfig, PosteriorProjector
from asrllm.models.pretrained import PretrainedConfig, PretrainedEncoder
from asrllm.models.speech_llm import Language, SpeechLLM
from asrllm.text.prompt import Prompt
from asrllm.train.ledger import step_cost

SAMPLES = torch.tensor([48000, 48000])


def convolution_backward(made: torch.Size, given: torch.Size, weights: torch.Size, *rest: Any, **_: Any) -> int:
    """As many as forward for each gradient wanted; torch's own formula forgets groups in that of the weights."""
    wanted_input, wanted_weights, _ = rest[-1]
    return 2 * made[0] * made[2:].numel() * weights.numel() * (wanted_input + wanted_weights)


def counted(run: Callable[[], torch.Tensor], backward: bool) -> float:
    """What torch executes; attention in its plain form, whose products are all counted."""
    formulas = {torch.ops.aten.convolution_backward: convolution_backward}
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        made = run()
        if backward:
            made.sum().backward()
    return float(counter.get_total_flops())


def check(module: nn.Module, run: Callable[[], torch.Tensor], flops: Flops, upstream: bool = False) -> None:
    """Compare a trained and a frozen part; `upstream`: whether the inputs want gradients."""
    for trained in (False, True):
        module.requires_grad_(trained)
        wanted = flops.step(trained, upstream)
        assert counted(run, backward=trained or upstream) == pytest.approx(wanted, rel=0.02), (trained, upstream)
    assert flops.step(False, False) == flops.forward


@pytest.mark.parametrize("subsampling", [4, 8])
@pytest.mark.parametrize("positions", ["rotary", "relative"])
def test_conformer(subsampling: int, positions: str) -> None:
    encoder = Conformer(
        ConformerConfig(
            type="conformer",
            subsampling=subsampling,
            positions=positions,
            subsampling_channels=16,
            layers=2,
            dim=64,
            heads=4,
            feed_forward=128,
        )
    ).eval()
    check(encoder, lambda: encoder(torch.randn(2, 48000), SAMPLES)[0], encoder.flops(SAMPLES))


def wav2vec2_shape(variant: str) -> dict:
    return {
        "conv_dim": [32] * 7,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
        "feat_extract_norm": variant,
        "do_stable_layer_norm": variant == "layer",
    }


def pretrained(kind: str) -> transformers.PreTrainedModel:
    """A random model with narrow layers."""
    shape = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 192}
    match kind:
        case "moonshine":
            return transformers.MoonshineModel(
                transformers.MoonshineConfig(
                    hidden_size=96,
                    intermediate_size=192,
                    encoder_num_hidden_layers=2,
                    decoder_num_hidden_layers=1,
                    encoder_num_attention_heads=4,
                    decoder_num_attention_heads=4,
                    vocab_size=50,
                )
            )
        case "whisper-cut" | "whisper-pad_30s":
            return transformers.WhisperModel(
                transformers.WhisperConfig(
                    d_model=64,
                    encoder_layers=2,
                    decoder_layers=1,
                    encoder_attention_heads=2,
                    decoder_attention_heads=2,
                    encoder_ffn_dim=128,
                    decoder_ffn_dim=64,
                    vocab_size=60,
                    pad_token_id=0,
                    bos_token_id=1,
                    eos_token_id=2,
                    decoder_start_token_id=1,
                )
            )
        case "hubert":
            return transformers.HubertModel(transformers.HubertConfig(**shape, **wav2vec2_shape("group")))
        case "wavlm":
            return transformers.WavLMModel(transformers.WavLMConfig(**shape, **wav2vec2_shape("group")))
    return transformers.Wav2Vec2Model(
        transformers.Wav2Vec2Config(**shape, **wav2vec2_shape(kind.removeprefix("wav2vec2-")))
    )


@pytest.mark.parametrize(
    "kind", ["whisper-cut", "whisper-pad_30s", "moonshine", "wav2vec2-group", "wav2vec2-layer", "hubert", "wavlm"]
)
def test_pretrained(kind: str, tmp_path: Path) -> None:
    pretrained(kind).save_pretrained(tmp_path)
    if kind.startswith(("wav2vec2", "hubert", "wavlm")):
        transformers.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    padding = "pad_30s" if kind.endswith("30s") else "cut"
    config = PretrainedConfig(type="pretrained", model=str(tmp_path), whisper_padding=padding)
    encoder = PretrainedEncoder(config).eval()
    check(encoder, lambda: encoder(torch.randn(2, 48000), SAMPLES)[0], encoder.flops(SAMPLES))


@pytest.mark.parametrize("upstream", [False, True])
def test_ctc_head(upstream: bool) -> None:
    head = CtcHead(24, 50, lower_units=20).eval()
    frames, lens = torch.randn(2, 30, 24, requires_grad=upstream), torch.tensor([30, 30])
    check(head, lambda: head(frames), head.flops(lens), upstream)
    check(head, lambda: head.intermediate(frames), head.flops(lens, intermediate=True), upstream)


@pytest.mark.parametrize("upstream", [False, True])
@pytest.mark.parametrize("kind", SHORTENING)
def test_projector_that_shortens(kind: str, upstream: bool) -> None:
    into = projector(kind, dim=24, llm_dim=32).eval()
    frames, lens = torch.randn(2, 32, 24, requires_grad=upstream), torch.tensor([32, 32])
    flops = into.flops(lens, into.output_lens(lens))
    check(into, lambda: into(frames, lens)[0], flops, upstream)


@pytest.mark.parametrize("upstream", [False, True])
def test_attention_decoder(upstream: bool) -> None:
    """The units after one, which a causal mask hides, are multiplied as well."""
    config = DecoderConfig(layers=2, dim=24, heads=2, feed_forward=40)
    decoder = AttentionDecoder(config, 16, 30).eval()
    frames, lens = torch.randn(2, 50, 16, requires_grad=upstream), torch.tensor([50, 50])
    labels = torch.randint(1, 30, (2, 11))
    hidden = Flops(products=2.0 * config.layers * config.dim * 2 * 12**2)
    flops = decoder.flops(lens, torch.tensor([12, 12])) + hidden
    found = counted(lambda: decoder(frames, lens, labels), backward=True)
    assert found == pytest.approx(flops.step(True, upstream), rel=0.02)


class Letters:
    """Units that are written as they are."""

    size = 301
    llm_ids = list(range(300))

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    encode_transcript = encode

    def respell(self, ids: list[int]) -> list[tuple[int, int, int]]:
        return [(number - 1, place, place + 1) for place, number in enumerate(ids)]


@pytest.mark.parametrize("upstream", [False, True])
def test_posterior_projector(upstream: bool) -> None:
    table = partial(nn.functional.embedding, weight=torch.randn(300, 64))
    projector = PosteriorProjector(PosteriorConfig(type="posterior", hidden=64), 32, 64, Letters(), table).eval()
    frames, scores = (torch.randn(2, 60, size) for size in (32, 301))
    scores[:, torch.arange(60), torch.arange(60) // 3 % 2 * (torch.arange(60) // 6 + 1)] += 20  # ten labels, blanks
    frames.requires_grad_(upstream), scores.requires_grad_(upstream)
    lens = torch.tensor([60, 60])
    _, made = projector(frames, lens, scores.log_softmax(-1))
    assert made.tolist() == [10, 10]
    flops = projector.flops(lens, made) + Flops(
        fixed=projector.expectation_flops(made).forward
    )  # a table that is fixed
    check(projector, lambda: projector(frames, lens, scores.log_softmax(-1))[0], flops, upstream)


def llama(vocabulary: int = 100) -> nn.Module:
    shape = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.LlamaConfig(vocab_size=vocabulary, num_key_value_heads=2, head_dim=24, **shape)
    return transformers.LlamaForCausalLM(config).eval()


def gpt2() -> nn.Module:
    config = transformers.GPT2Config(vocab_size=100, n_embd=64, n_layer=2, n_head=2, n_positions=128)
    return transformers.GPT2LMHeadModel(config).eval()


def whole(flops: Flops) -> Flops:
    """With the keys that a causal mask hides, which dense attention multiplies, too."""
    return replace(flops, products=2 * flops.products)


@pytest.mark.parametrize("make", [llama, gpt2])
@pytest.mark.parametrize("upstream", [False, True])
def test_llm(make: Callable[[], nn.Module], upstream: bool) -> None:
    llm = make()
    embeds, lens = torch.randn(2, 40, 64, requires_grad=upstream), torch.tensor([40, 40])

    def run() -> torch.Tensor:
        hidden = llm.base_model(inputs_embeds=embeds, use_cache=False).last_hidden_state
        return llms.logits(llm, hidden[:, -7:])

    check(llm, run, whole(llms.flops(llm, lens, targets=14)), upstream)


def test_llm_after_cached_positions() -> None:
    """A cached position is a key and nothing else."""
    llm = llama().requires_grad_(False)
    lens, ids = torch.tensor([30]), torch.zeros(1, 50, dtype=torch.int64)
    cache = llm.base_model(ids, use_cache=True).past_key_values

    def run() -> torch.Tensor:
        return llm.base_model(inputs_embeds=torch.randn(1, 30, 64), past_key_values=cache).last_hidden_state

    flops, alone = llms.flops(llm, lens, past=50), llms.flops(llm, lens)
    assert counted(run, False) == pytest.approx(flops.forward + alone.products, rel=0.02)


def test_the_causal_half_is_half() -> None:
    """2 L n^2 d of the dense 4 L n^2 d."""
    assert llms.flops(gpt2(), torch.tensor([40])).products == 2 * 2 * 40**2 * 64


@pytest.mark.parametrize("kind", ["linear", "segment_qformer", "posterior"])
@pytest.mark.parametrize(
    ("trained", "losses"),
    [
        (("encoder", "ctc"), ("ctc", "ctc_intermediate")),
        (("encoder", "ctc"), ("ctc", "cr_ctc")),
        (("encoder", "ctc", "decoder"), ("ctc", "cr_ctc", "attention")),
        (("projector",), ("llm",)),
        (("projector", "llm"), ("llm",)),
        (("projector", "llm.lora"), ("llm",)),
        (("encoder", "projector"), ("llm",)),
        (("encoder", "ctc", "projector", "llm"), ("ctc", "llm")),
    ],
)
def test_a_step_of_the_whole_model(kind: str, trained: tuple[str, ...], losses: tuple[str, ...]) -> None:
    """Two utterances of one length: nothing is padding, and the rest is counted as torch counts it."""
    system = speech_llm(kind, adapters="llm.lora" in trained)
    system.train("cr_ctc" in losses)
    for name, part in system.parts.items():
        part.requires_grad_(name in trained)
    batch = Batch(["a", "b"], ["hello you", "what else"], torch.randn(1, 48000).expand(2, -1), SAMPLES)
    heard = system(batch, ("llm",))["llm"].speech_lens

    def run() -> torch.Tensor:
        return torch.stack([loss.sum for loss in system(batch, losses).values()]).sum()

    work = system.work(batch, losses, heard)
    assert all(each.real == each.padded for each in work)
    dense = [replace(each, real=whole(each.real)) for each in work if each.part == "llm"]
    others = [each for each in work if each.part != "llm"]
    cost = step_cost([*others, *dense], system.parts, trained, torch.device("cpu"))
    assert counted(run, backward=True) == pytest.approx(cost.total, rel=0.02)


def speech_llm(kind: str, adapters: bool) -> SpeechLLM:
    llm = llama(300)
    encoder = Conformer(
        ConformerConfig(
            type="conformer",
            subsampling_channels=16,
            layers=2,
            dim=64,
            heads=4,
            feed_forward=128,
            intermediate_layers=(1,),
        )
    )
    if kind == "posterior":
        config = PosteriorConfig(type="posterior", hidden=64, context=0)
        into: nn.Module = PosteriorProjector(config, 64, 64, Letters(), partial(llms.embed, llm))
    else:
        into = projector(kind, dim=64, llm_dim=64).eval()
    prompt = Prompt(before=[30, 31, 32, 33, 34, 35, 36, 37], after=[38, 39], end=40)
    language = Language(Letters(), Letters(), Letters(), prompt)
    lora = attach(llm, LoraConfig(rank=8, targets="all_linear")) if adapters else None
    decoder = AttentionDecoder(DecoderConfig(layers=1, dim=64, heads=2, feed_forward=64), 64, 301)
    return SpeechLLM(language, encoder, CtcHead(64, 301), into, llm, lora, decoder=decoder)
