"""A trained experiment, or a pretrained recogniser, as a function from audio to text.

    from asrllm.api import transcriber

    with transcriber("exp/train_joint", "conf/decode_joint.yaml") as transcribe:
        for result in transcribe(["one.wav", "two.flac"]):
            print(result.best.text)

`asrllm.bin.decode` is the same over a data directory. It does not know how a search works, nor where results are kept.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from asrllm import config as configs
from asrllm import console
from asrllm.batch import Batch
from asrllm.console import UserError
from asrllm.data import sampler
from asrllm.data.dataset import Dataset, batches
from asrllm.data.kaldi import Utterance
from asrllm.decode.decoder import DecodeConfig, Decoder, PretrainedConfig, prepared
from asrllm.decode.fusion import FusionConfig, Pieces
from asrllm.decode.hotword_prompt import HotwordPrompt
from asrllm.decode.hotwords import HotwordTree
from asrllm.decode.joint import Companions, JointConfig
from asrllm.decode.prior import PRIOR_FILE, read_prior
from asrllm.decode.speculative import SpeculativeConfig
from asrllm.decode.text_lm import TextLm, TextLmConfig, text_lm
from asrllm.experiment import Experiment
from asrllm.hypothesis import Hypothesis, NBest
from asrllm.models.frontend import SAMPLE_RATE
from asrllm.models.llm import LlmConfig, load_llm
from asrllm.models.speech_llm import SpeechLLM
from asrllm.models.zero_shot import ZeroShotRecogniser
from asrllm.text.hotwords import check_hotwords, read_hotwords
from asrllm.text.lexicon import Lexicon, read_lexicon
from asrllm.text.llm_tokenizer import LlmTokenizer
from asrllm.text.ngram import read_arpa
from asrllm.text.phonemes import PhonemeTokenizer

Recognise = Callable[[Batch], list[NBest]]  # one n-best list for each utterance, in the order of the batch


@contextmanager
def transcriber(
    exp: Path | str, config: Path | str, device: str = "cpu"
) -> Iterator[Callable[[Sequence[Path | str]], list[NBest]]]:
    """What recognises audio files, of any rate and one channel, by the experiment `exp` and a YAML of a search.

    It gives one n-best list for each file, in their order, under the file's name. Files that the YAML names are looked
    for from the working directory, as by `asrllm.bin.decode`.

    Raises:
        UserError: no such experiment, YAML or file; a search that the model cannot do; audio that cannot be read.
    """
    search = configs.load(Path(config), DecodeConfig)
    with recogniser(search, Path(exp), torch.device(device)) as recognise:
        yield lambda files: recognise_all([_utterance(Path(each)) for each in files], recognise, search.batch_seconds)


def _utterance(file: Path) -> Utterance:
    if not file.is_file():
        raise UserError(f"{file}: no such file")
    return Utterance(str(file), str(file), "", str(file))


def recognise_all(utterances: Sequence[Utterance], recognise: Recognise, batch_seconds: float) -> list[NBest]:
    """Results in the order of `utterances`; batches of like durations."""
    dataset = Dataset(utterances, SAMPLE_RATE)
    plan = sampler.plan_alike(dataset.seconds(0), batch_seconds)
    found: dict[str, NBest] = {}
    with console.progress("decoding", len(utterances), "utterances") as advance:
        for batch in batches(dataset, plan):
            found |= {result.utt_id: result for result in recognise(batch)}
            advance(len(batch), "")
    return [found[utterance.utt_id] for utterance in utterances]


@contextmanager
def recogniser(config: DecodeConfig, exp: Path, device: torch.device) -> Iterator[Recognise]:
    """What turns a batch into n-best lists.

    Raises:
        UserError: no such experiment, or a search that its model cannot do.
    """
    if isinstance(config.search, PretrainedConfig):
        yield _zero_shot(ZeroShotRecogniser(config.search.model))
        return
    experiment, search = Experiment(exp), config.search
    if isinstance(search, JointConfig | SpeculativeConfig) and experiment.config.model.llm is None:
        raise UserError(f"{exp}: its model has no LLM: decode it with search.type ctc_greedy")
    model = experiment.model().to(device)
    if isinstance(model.ctc_tokenizer, PhonemeTokenizer) and isinstance(search, FusionConfig | SpeculativeConfig):
        raise UserError(
            f"{exp}: its CTC units are phonemes, of which search.type {search.type} can make no words without a "
            "lexicon: choose ctc_greedy or ctc_prefix"
        )
    if isinstance(model.ctc_tokenizer, PhonemeTokenizer) and config.guards.ctc_agreement is not None:
        raise UserError(f"{exp}: its CTC units are phonemes, which guards.ctc_agreement cannot write: leave it out")
    companions = _companions(config, experiment, model)
    pieces = _pieces(search, experiment, model, device) if isinstance(search, FusionConfig) else None
    decoder = Decoder(model, config, companions, pieces, SAMPLE_RATE)
    with ExitStack() as stack:
        for part in (model, companions.lm, pieces.lm.llm if pieces else None):
            if part is not None:
                stack.enter_context(prepared(part.to(device), config))
        yield lambda batch: decoder.decode(batch.to(device))


def _zero_shot(model: ZeroShotRecogniser) -> Recognise:
    def recognise(batch: Batch) -> list[NBest]:
        assert batch.waves is not None
        texts = model.transcribe(batch.waves, batch.wave_lens)
        lens = batch.wave_lens.tolist()
        return [
            NBest(utt_id, size / SAMPLE_RATE, [Hypothesis(text, 0.0)])
            for utt_id, size, text in zip(batch.utt_ids, lens, texts, strict=True)
        ]

    return recognise


def _pieces(config: FusionConfig, experiment: Experiment, model: SpeechLLM, device: torch.device) -> Pieces:
    """What fuses the units of the model with the LM that the search names."""
    units = model.ctc_tokenizer
    log_prior = read_prior(experiment.folder / PRIOR_FILE, units.size) if config.weights.prior else None
    ngrams = read_arpa(Path(config.look_ahead.arpa), units) if config.look_ahead else None
    return Pieces(units, load_text_lm(config.lm, device), config, log_prior, ngrams)


def load_text_lm(config: TextLmConfig, device: torch.device) -> TextLm:
    """The LM of a configuration."""
    llm = load_llm(LlmConfig(model=config.model, dtype=config.dtype)).to(device)
    return text_lm(config, llm, LlmTokenizer(config.model))


def _companions(config: DecodeConfig, experiment: Experiment, model: SpeechLLM) -> Companions:
    """What a search of the LLM takes from elsewhere: an LM over its tokens, the label prior, hotwords."""
    search, prompt = config.search, _hotword_prompt(config, model)
    if not isinstance(search, JointConfig):
        return Companions(hotword_prompt=prompt)
    wanted = search.weights.prior is not None
    log_prior = read_prior(experiment.folder / PRIOR_FILE, model.ctc_tokenizer.size) if wanted else None
    return Companions(_lm(search, model), log_prior, _hotwords(search, model), prompt, _lexicon(search, model))


def _lm(config: JointConfig, model: SpeechLLM) -> torch.nn.Module | None:
    if config.lm is None:
        return None
    if not LlmTokenizer(config.lm).same_vocabulary(model.llm_tokenizer):
        raise UserError(f"{config.lm}: other tokens than those of the model's LLM: joint decoding needs one vocabulary")
    return load_llm(LlmConfig(model=config.lm))


def _lexicon(config: JointConfig, model: SpeechLLM) -> Lexicon | None:
    """How words are pronounced in the units of the CTC head."""
    units = model.ctc_tokenizer
    if config.lexicon is None:
        return None
    if not isinstance(units, PhonemeTokenizer):
        raise UserError(f"search.lexicon is {config.lexicon}, but the CTC units are no phonemes: leave it out")
    return Lexicon(units) if config.lexicon == "dictionary" else read_lexicon(Path(config.lexicon), units)


def _hotwords(config: JointConfig, model: SpeechLLM) -> HotwordTree | None:
    """The phrases that the search favours, over the tokens of the model's LLM."""
    if config.hotwords is None:
        return None
    phrases, tokens = read_hotwords(Path(config.hotwords)), model.llm_tokenizer
    check_hotwords(phrases, tokens, model.ctc_tokenizer if config.weights.ctc is not None else None, config.hotwords)
    return HotwordTree(phrases, tokens.strings, model.llm.get_output_embeddings().weight.shape[0])


def _hotword_prompt(config: DecodeConfig, model: SpeechLLM) -> HotwordPrompt | None:
    """The phrases that the prompt may name."""
    if config.hotword_prompt is None:
        return None
    phrases = read_hotwords(Path(config.hotword_prompt.file))
    return HotwordPrompt(config.hotword_prompt, phrases, model.ctc_tokenizer, model.llm_tokenizer)
