"""CTC prefix scores: how probable it is that a label sequence begins with given labels (Watanabe et al. 2017, alg. 2).

With p_t(c) the posterior of label c in frame t, and n_t(g), b_t(g) the probability of all paths over the first t frames
that spell g and end in its last label or in a blank, the recursion is, f_t = n_t + b_t (b_t where c repeats g's end),

    n_t(gc) = p_t(c) (n_{t-1}(gc) + f_{t-1}(g)),   b_t(gc) = p_t(blank) (b_{t-1}(gc) + n_{t-1}(gc)),
    prefix(gc) = sum_t p_t(c) f_{t-1}(g).

Divided by the product of the posteriors so far each line is a running sum, so time needs no loop (ours). The prefix
score of a candidate needs no n or b of its own: those are computed for the one candidate that is taken. All is float64,
with posteriors of at least e^-50: cumulated logarithms keep 1e-9, and a path is never lost in a product.

It knows labels and frames; not tokens of an LLM, not beams.
"""

from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from asrllm.batch import real

BLANK = 0
LOG_FLOOR = -50.0
CHUNK = 1 << 18  # posteriors gathered at once: 2 MiB stay in the cache of a core


@dataclass(frozen=True)
class Paths:
    """Label sequences and the paths that spell them: N rows, each of one utterance."""

    utterances: torch.Tensor  # (N,) int64
    last: torch.Tensor  # (N,) int64, the last label; the blank where there is none yet
    log_label: torch.Tensor  # (N, T + 1) log n_t from t = 0, before the first frame
    log_blank: torch.Tensor  # (N, T + 1) log b_t
    log_prefix: torch.Tensor  # (N,)

    def take(self, rows: torch.Tensor) -> "Paths":
        """The given rows (N',)."""
        return Paths(*(field[rows] for field in self._fields()))

    def where(self, chosen: torch.Tensor, others: "Paths") -> "Paths":
        """These rows where `chosen` (N,), the others' elsewhere."""
        pairs = zip(self._fields(), others._fields(), strict=True)
        return Paths(*(torch.where(chosen.view(-1, *[1] * (one.dim() - 1)), one, other) for one, other in pairs))

    def join(self, others: "Paths") -> "Paths":
        """These rows, then the others."""
        return Paths(*(torch.cat(pair) for pair in zip(self._fields(), others._fields(), strict=True)))

    def merge(self, groups: torch.Tensor, count: int) -> "Paths":
        """One row for each of `count` groups of rows that end alike: what may follow them adds up."""
        firsts = [field.new_zeros(count).scatter(0, groups, field) for field in (self.utterances, self.last)]
        return Paths(*firsts, *(log_sums(each, groups, count) for each in self._fields()[2:]))

    def _fields(self) -> tuple[torch.Tensor, ...]:
        return self.utterances, self.last, self.log_label, self.log_blank, self.log_prefix


def log_sums(values: torch.Tensor, groups: torch.Tensor, count: int) -> torch.Tensor:
    """log of the sum of e^values (N, ...) over the rows of each group (count, ...), `groups` (N,); -inf without any."""
    shape, index = (count, *values.shape[1:]), groups.view(-1, *[1] * (values.dim() - 1)).expand_as(values)
    top = values.new_full(shape, -torch.inf).scatter_reduce(0, index, values, "amax").nan_to_num(neginf=0.0)
    return values.new_zeros(shape).index_add(0, groups, (values - top[groups]).exp()).log() + top


class CtcPrefix:
    """The posteriors of a batch of utterances, and what follows from them for label sequences."""

    def __init__(self, log_probs: torch.Tensor, lens: torch.Tensor) -> None:
        """Read `log_probs` (B, T, U), real up to `lens` (B,)."""
        if log_probs.shape[1] == 0:
            log_probs = pad(log_probs, (0, 0, 0, 1))  # a sum over no frame at all has no largest term
        self.lens = lens.to(log_probs.device)
        self.mask = real(self.lens, log_probs.shape[1])
        self.labels = log_probs.shape[2]
        # The one copy of all posteriors: (B, U, T), so that a label is read in one go, changed in place.
        rows = log_probs.transpose(1, 2).to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        rows.clamp_(min=LOG_FLOOR).masked_fill_(~self.mask[:, None], LOG_FLOOR)
        self._blanks = pad(rows[:, BLANK].double().cumsum(1), (1, 0))  # (B, T + 1)
        self._rows = rows.flatten(0, 1)  # (B * U, T)

    def start(self) -> Paths:
        """The empty sequence of each utterance: blanks only."""
        never = torch.full_like(self._blanks, -torch.inf)
        nothing = torch.zeros_like(self.lens)
        return Paths(
            torch.arange(len(self.lens), device=self.lens.device), nothing, never, self._blanks, self._blanks[:, 0]
        )

    def append(self, paths: Paths, labels: torch.Tensor) -> Paths:
        """Each sequence with one label (N,) more."""
        entering = self._entering(paths, labels == paths.last)
        emitted = self._posteriors(paths.utterances, labels)
        sums = pad(emitted.cumsum(1), (1, 0))
        log_label = pad(sums[:, 1:] + (entering - sums[:, :-1]).logcumsumexp(1), (1, 0), value=-torch.inf)
        blanks = self._blanks[paths.utterances]
        log_blank = blanks[:, 1:] + (log_label - blanks)[:, :-1].logcumsumexp(1)
        log_blank = pad(log_blank, (1, 0), value=-torch.inf)
        return Paths(paths.utterances, labels, log_label, log_blank, (entering + emitted).logsumexp(1))

    def log_prefix(self, paths: Paths, labels: torch.Tensor) -> torch.Tensor:
        """log prefix(gc) for each sequence g and each of its candidates c, `labels` (N, C)."""
        entering = self._entering(paths, torch.zeros_like(paths.last, dtype=torch.bool))
        top = entering.amax(1, keepdim=True).nan_to_num(neginf=0.0)
        weights = (entering - top).exp()[..., None]
        size = max(1, CHUNK // max(1, labels.shape[1] * self._rows.shape[1]))
        parts = zip(paths.utterances.split(size), labels.split(size), weights.split(size), strict=True)
        sums = [(self._posteriors(one[:, None], other).exp_() @ weight)[..., 0] for one, other, weight in parts]
        repeated = (
            self._entering(paths, paths.last > BLANK) + self._posteriors(paths.utterances, paths.last)
        ).logsumexp(1)
        return torch.where(labels == paths.last[:, None], repeated[:, None], torch.cat(sums).log() + top)

    def log_whole(self, paths: Paths) -> torch.Tensor:
        """log-probability (N,) of each sequence as all there is: minus its CTC loss."""
        end = self.lens[paths.utterances][:, None]
        return torch.logaddexp(paths.log_label.gather(1, end), paths.log_blank.gather(1, end))[:, 0]

    def _entering(self, paths: Paths, repeats: torch.Tensor) -> torch.Tensor:
        """log f_{t-1} (N, T) for t = 1 .. T: the paths that a new label may follow; none past the end."""
        whole = torch.logaddexp(paths.log_label, paths.log_blank)
        before = torch.where(repeats[:, None], paths.log_blank, whole)[:, :-1]
        return before.masked_fill(~self.mask[paths.utterances], -torch.inf)

    def _posteriors(self, utterances: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """log p_t (..., T) of `labels` (...)."""
        return self._rows[utterances * self.labels + labels].double()
