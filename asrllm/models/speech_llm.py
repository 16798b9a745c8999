"""SpeechLLM: named parts (encoder, ctc, decoder, projector, llm, llm.lora, cross), losses and prefixes made from them.

It never freezes a part, never reads a training plan, never touches a path.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from asrllm.batch import Batch, Loss, pad
from asrllm.flops import Flops, Work, longest, matrices
from asrllm.models import llm as llms
from asrllm.models import packing, prefix, recomputation
from asrllm.models.attention_decoder import AttentionDecoder
from asrllm.models.cross_attention import CrossAttention, Heard
from asrllm.models.ctc import CtcHead, consistency_loss, ctc_loss
from asrllm.models.posterior import PosteriorProjector
from asrllm.text.llm_tokenizer import LlmTokenizer
from asrllm.text.prompt import Prompt
from asrllm.text.tokenizer import Tokenizer

LOSSES = ("ctc", "cr_ctc", "ctc_intermediate", "attention", "llm")
TARGETS_AT_ONCE = 1024  # with logits: 0.6 GB in float32 for a vocabulary of 150,000


@dataclass(frozen=True)
class Language:
    """What the model knows of text: the CTC units, and the LLM's tokens and prompt where there is an LLM."""

    units: Tokenizer
    lower_units: Tokenizer  # of intermediate layers
    tokens: LlmTokenizer | None
    prompt: Prompt | None


class SpeechLLM(nn.Module):
    """A speech encoder with a CTC head, and, if given, a projector into an LLM, adapters and cross-attention in that.

    Speech lies in the row that the LLM reads or, where there is cross-attention, is heard by that. An attention
    decoder, if given, is there for the loss `attention` alone.
    """

    def __init__(
        self,
        language: Language,
        encoder: nn.Module,
        ctc: CtcHead,
        projector: nn.Module | None,
        llm: nn.Module | None,
        adapters: nn.Module | None = None,
        cross: CrossAttention | None = None,
        decoder: AttentionDecoder | None = None,
    ) -> None:
        super().__init__()
        self.language = language
        self.encoder: Any = encoder
        self.ctc, self.projector, self.adapters = ctc, projector, adapters
        self.cross, self.decoder = cross, decoder
        self.recomputed: set[str] = set()  # parts whose blocks run again for their gradient
        self.llm: Any = llm
        if llm is not None:
            packing.use(llm)

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The parts that are there, by name."""
        named = {"encoder": self.encoder, "ctc": self.ctc, "decoder": self.decoder, "projector": self.projector}
        named |= {"llm": self.llm, "llm.lora": self.adapters, "cross": self.cross}
        return {name: part for name, part in named.items() if part is not None}

    @property
    def samples_per_frame(self) -> int:
        """Samples of audio from one encoder frame to the next."""
        span = 384_000  # a multiple of every encoder's step; less than the 30 s that some are defined on
        one, other = self.encoder.output_lens(torch.tensor([48_000, 48_000 + span])).tolist()
        return round(span / (other - one))

    @property
    def blocks(self) -> list[nn.Module]:
        """The transformer blocks of encoder and LLM, most of their weights: what `fsdp2` splits one by one."""
        return [block for part in (self.encoder, self.llm) if part is not None for block in recomputation.blocks(part)]

    @property
    def ctc_tokenizer(self) -> Tokenizer:
        """The units of the CTC head."""
        return self.language.units

    @property
    def llm_tokenizer(self) -> LlmTokenizer:
        """The LLM's tokens."""
        assert self.language.tokens is not None, "no LLM in this experiment"
        return self.language.tokens

    @property
    def llm_end_ids(self) -> list[int]:
        """Tokens that end a transcript."""
        return [self._prompt().end]

    def forward(self, batch: Batch, losses: tuple[str, ...]) -> dict[str, Loss]:
        """The losses asked for, each summed over its targets.

        With `cr_ctc` in training every utterance is encoded twice, each time with masks and dropout of its own, and all
        losses but the LLM's, which has the first view, are means over both. `cr_ctc` is counted in CTC labels, so that
        beside `ctc` of weight 1 its weight is the paper's alpha; in evaluation mode, where both views would be equal,
        it is 0 and costs nothing.
        """
        views = self._views(losses)
        frames, lens, taps = self._encode(batch.repeat(views), "ctc_intermediate" in losses)
        made: dict[str, Loss] = {}
        counts = self.targets(batch, losses)
        log_probs = self.ctc(frames) if "ctc" in losses or "cr_ctc" in losses else None
        if "ctc" in losses and log_probs is not None:
            made["ctc"] = Loss(ctc_loss(log_probs, lens, self._labels(batch) * views) / views, counts["ctc"])
        if "cr_ctc" in losses and log_probs is not None:
            apart = consistency_loss(log_probs, lens) if views == 2 else log_probs.new_zeros(())
            made["cr_ctc"] = Loss(apart, counts["cr_ctc"])
        if "ctc_intermediate" in losses:
            labels = self._labels(batch, lower=True) * views
            each = [ctc_loss(self.ctc.intermediate(tap), lens, labels) / views for tap in taps]
            made["ctc_intermediate"] = Loss(torch.stack(each).mean(), counts["ctc_intermediate"])
        if "attention" in losses:
            assert self.decoder is not None, "no attention decoder in this experiment"
            total, correct = self.decoder.loss(frames, lens, self._labels(batch) * views)
            made["attention"] = Loss(total / views, counts["attention"], correct / views)
        if "llm" in losses:
            first = slice(len(batch))
            seen = None if log_probs is None else log_probs[first]
            made["llm"] = self._llm_loss(batch, frames[first], lens[first], seen)
        return made

    def targets(self, batch: Batch, losses: tuple[str, ...]) -> dict[str, int]:
        """How many targets each loss is summed over, without running the model.

        To CTC an empty transcript is one target, so that a batch without any speech weighs no more than others.
        """
        counts = {}
        for name in losses:
            lower = name == "ctc_intermediate"
            rows = self._transcripts(batch) if name == "llm" else self._labels(batch, lower)
            ends = name == "attention"  # the LLM's transcripts hold theirs
            counts[name] = sum(max(1, len(row) + ends) for row in rows)
        return counts

    def work(self, batch: Batch, losses: tuple[str, ...], speech_lens: torch.Tensor | None = None) -> list[Work]:
        """What each part does for these losses of a batch, of which lengths and texts alone are read.

        Args:
            batch: where it carries frames the encoder does nothing.
            losses: as in `forward`.
            speech_lens: (B,) positions that the LLM was given; what is to be expected where they are not known yet.
        """
        waves = batch.wave_lens.cpu()
        frames = self.encoder.output_lens(waves) if batch.frame_lens is None else batch.frame_lens.cpu()
        waves, seen = waves.repeat(self._views(losses)), frames.repeat(self._views(losses))
        below = frozenset({"encoder"})
        reads_ctc = "llm" in losses and isinstance(self.projector, PosteriorProjector)
        done = []
        if batch.frames is None:
            done.append(Work("encoder", self.encoder.flops(waves), self.encoder.flops(longest(waves))))
        heads = [False] * (reads_ctc or "ctc" in losses or "cr_ctc" in losses)
        heads += [True] * len(self.encoder.intermediate_layers) * ("ctc_intermediate" in losses)
        for intermediate in heads:
            flops = self.ctc.flops(seen, intermediate), self.ctc.flops(longest(seen), intermediate)
            done.append(Work("ctc", *flops, below))
        if "attention" in losses:
            decoder: Any = self.decoder
            said = torch.tensor([len(row) + 1 for row in self._labels(batch)]).repeat(self._views(losses))
            flops = decoder.flops(seen, said), decoder.flops(longest(seen), longest(said))
            done.append(Work("decoder", *flops, below))
        if "llm" in losses:
            done += self._llm_work(batch, frames, speech_lens, below | {"ctc"} if reads_ctc else below)
        return done

    def _llm_work(
        self, batch: Batch, frames: torch.Tensor, speech_lens: torch.Tensor | None, below: frozenset[str]
    ) -> list[Work]:
        projector: Any = self.projector
        targets = torch.tensor([len(row) for row in self._transcripts(batch)])
        spells = isinstance(projector, PosteriorProjector)
        if speech_lens is None:  # a hypothesis has about as many tokens as the transcript
            speech_lens = (targets - 1).minimum(frames) if spells else projector.output_lens(frames)
        speech, first = speech_lens.cpu(), len(self._prompt().before)
        lens = (speech if self.cross is None else 0) + len(self._prompt().after) + targets - 1
        projected = projector.flops(frames, speech), projector.flops(longest(frames), longest(speech))
        done = [Work("projector", *projected, below)]
        if spells:
            table = projector.expectation_flops
            done.append(Work("llm", table(speech), table(longest(speech)), below))
        rows = llms.flops(self.llm, lens, past=first, targets=int(targets.sum()))
        before = llms.flops(self.llm, torch.tensor([first]))  # runs once for the batch, which lies in one row
        adapters = frozenset({"llm.lora", "cross"})
        done.append(Work("llm", before, before, adapters))
        done.append(Work("llm", rows, rows, below | adapters | {"projector"}))
        if self.adapters is not None:
            adapted = Flops(weights=2.0 * matrices(self.adapters) * (first + float(lens.sum())))
            done.append(Work("llm.lora", adapted, adapted, below | {"projector", "cross"}))
        if self.cross is not None:
            crossed = self.cross.flops(lens, speech)
            done.append(Work("cross", crossed, crossed, below | {"projector", "llm", "llm.lora"}))
        return done

    def _views(self, losses: tuple[str, ...]) -> int:
        return 2 if "cr_ctc" in losses and (self.encoder.training or self.ctc.training) else 1

    def encode(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Encoder frames (B, T, D) and their lengths; those in the batch if it carries some."""
        frames, lens, _ = self._encode(batch, False)
        return frames, lens

    def ctc_log_probs(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """CTC log-probabilities (B, T, V) and lengths."""
        frames, lens = self.encode(batch)
        return self.ctc(frames), lens

    def before(self) -> torch.Tensor:
        """Embeddings (P, H) of the text before the audio, the same for all utterances."""
        return prefix.before(self.llm, self._prompt(), self.llm.get_input_embeddings().weight)

    @property
    def prompt_line(self) -> int:
        """Positions of `before` on lines above that of the audio: a line more would stand there."""
        return self._prompt().line

    def prefix(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Speech and text after: embeddings (B, L, H), real positions first, and their lengths, at least 1."""
        frames, lens = self.encode(batch)
        sequence = prefix.join(self.llm, self._prompt(), *self._in_row(*self._speech(frames, lens, None)))
        embeds, prefix_lens = pad(list(sequence.embeds.split(sequence.lens)))
        return embeds, prefix_lens.to(embeds.device)

    def heard(self, batch: Batch) -> Heard | None:
        """What the LLM hears beside the prefix: nothing, where there is no cross-attention."""
        return None if self.cross is None else self.cross.listen(*self._speech(*self.encode(batch), None))

    def llm_log_probs(self, batch: Batch) -> torch.Tensor:
        """What the LLM gives (targets, V) at each token of the transcripts and their ends, all in a row."""
        frames, lens = self.encode(batch)
        hidden, _ = self._at_targets(batch, *self._speech(frames, lens, None))
        return llms.logits(self.llm, hidden).float().log_softmax(-1)

    def nats(self, batch: Batch, listens: bool = True) -> torch.Tensor:
        """-log p (B,) of each transcript and its end by the LLM after its prompt, with the speech if it `listens`."""
        if listens:
            speech, lens = self._speech(*self.encode(batch), None)
        else:
            lens = torch.zeros(len(batch), dtype=torch.int64, device=self.llm.device)
            speech = torch.zeros(len(batch), 0, llms.width(self.llm), device=self.llm.device)
        hidden, gold = self._at_targets(batch, speech, lens)
        nats = [
            nn.functional.cross_entropy(llms.logits(self.llm, piece).float(), tokens, reduction="none")
            for piece, tokens in zip(hidden.split(TARGETS_AT_ONCE), gold.split(TARGETS_AT_ONCE), strict=True)
        ]
        sizes = [len(row) for row in self._transcripts(batch)]
        return torch.stack([row.sum() for row in torch.cat(nats).split(sizes)])

    def row(self, batch: Batch) -> tuple[torch.Tensor, dict[str, int]]:
        """What the LLM reads of a batch of one: embeddings (L, H), and the positions of each piece, in their order."""
        prompt, [transcript] = self._prompt(), self._transcripts(batch)
        speech, lens = self._in_row(*self._speech(*self.encode(batch), None))
        own = prefix.join(self.llm, prompt, speech, lens, [transcript[:-1]])
        embeds = torch.cat([prefix.before(self.llm, prompt, own.embeds), own.embeds])
        texts = {"after": len(prompt.after), "transcript": len(transcript) - 1}
        audio = own.lens[0] - sum(texts.values())
        return embeds, {"before": len(prompt.before), "audio": audio, **texts}

    def _encode(self, batch: Batch, taps: bool) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        if batch.frames is not None and batch.frame_lens is not None:
            return batch.frames.float(), batch.frame_lens, []
        assert batch.waves is not None, "a batch carries waves or frames"
        if taps:
            return self.encoder.with_intermediate(batch.waves, batch.wave_lens)
        frames, lens = self.encoder(batch.waves, batch.wave_lens)
        return frames, lens, []

    def _speech(
        self, frames: torch.Tensor, lens: torch.Tensor, log_probs: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        assert self.projector is not None, "no projector in this experiment"
        if isinstance(self.projector, PosteriorProjector) and log_probs is None:
            log_probs = self.ctc(frames)
        return self.projector(frames, lens, log_probs)

    def _in_row(self, speech: torch.Tensor, lens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The speech that lies among the text."""
        return (speech, lens) if self.cross is None else (speech[:, :0], torch.zeros_like(lens))

    def _llm_loss(self, batch: Batch, frames: torch.Tensor, lens: torch.Tensor, log_probs: torch.Tensor | None) -> Loss:
        """Cross-entropy of the transcript and its end token; logits at those positions only, some at a time."""
        speech, speech_lens = self._speech(frames, lens, log_probs)
        hidden, gold = self._at_targets(batch, speech, speech_lens)
        pieces = list(zip(hidden.split(TARGETS_AT_ONCE), gold.split(TARGETS_AT_ONCE), strict=True))
        if len(pieces) == 1 or not hidden.requires_grad:
            sums = [self._cross_entropy(*piece) for piece in pieces]
        else:  # logits are made again for the gradient, so that those of one piece are in memory
            sums = [checkpoint(self._cross_entropy, *piece, use_reentrant=False) for piece in pieces]
        loss, correct = (torch.stack(column).sum() for column in zip(*sums, strict=True))
        return Loss(loss, len(gold), correct, speech_lens)

    def _cross_entropy(self, hidden: torch.Tensor, gold: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of tokens (targets,) at hidden states (targets, H): the sum, and how many had the highest score."""
        scores = llms.logits(self.llm, hidden).float()  # (targets, V)
        return nn.functional.cross_entropy(scores, gold, reduction="sum"), (scores.argmax(-1) == gold).sum()

    def _at_targets(
        self, batch: Batch, speech: torch.Tensor, speech_lens: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Final hidden states (targets, H) that predict the transcripts and their ends, and those tokens (targets,)."""
        transcripts = self._transcripts(batch)
        hears = self.cross is not None and speech.shape[1] > 0
        heard = self.cross.listen(speech, speech_lens) if hears and self.cross is not None else None
        row = self._in_row(speech, speech_lens)
        sequence = prefix.join(self.llm, self._prompt(), *row, [row[:-1] for row in transcripts])
        hidden = prefix.body(self.llm, self._prompt(), sequence, heard)
        # The tokens of a transcript are predicted at the last positions of its utterance.
        ends = itertools.accumulate(sequence.lens)
        where = [torch.arange(end - len(row), end) for end, row in zip(ends, transcripts, strict=True)]
        gold = torch.tensor([token for row in transcripts for token in row], device=speech.device)
        return hidden[torch.cat(where).to(speech.device)], gold

    def _labels(self, batch: Batch, lower: bool = False) -> list[list[int]]:
        units = self.language.lower_units if lower else self.language.units
        return [units.encode(text) for text in batch.texts]

    def _transcripts(self, batch: Batch) -> list[list[int]]:
        return [[*self.llm_tokenizer.encode_transcript(text), self._prompt().end] for text in batch.texts]

    def _prompt(self) -> Prompt:
        """The prompt; where all its text hears the speech, none of it comes before."""
        prompt = self.language.prompt
        assert prompt is not None, "no LLM in this experiment"
        return prompt if self.cross is None else Prompt([], prompt.before + prompt.after, prompt.end)
