"""The gold choice against the others of its row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import cross_entropy

from embedgrad_cli.core.kernels.placed import placed
from embedgrad_cli.core.objectives.objective import Passes
from embedgrad_cli.core.text.answer_tokens import Choices
from embedgrad_cli.core.text.encoding import Row
from embedgrad_cli.core.text.marked_tokens import Example
from embedgrad_cli.tasks.score_rule import Rule, divisor


@dataclass(frozen=True)
class RowChoices:
    """The choices of one row, what their log-likelihoods are divided by, and which of them is right."""

    choices: Choices
    divisors: tuple[int, ...]
    gold: int


@dataclass(frozen=True)
class Choice:
    """Cross-entropy over the choices' scores, and the gold choice's loss per token, the mean over the rows of a batch:

        s_k = Σ_t log p(c_kt | x, c_k<t) / d_k
        loss = choice_weight * (log Σ_k exp s_k - s_g) - gold_weight * Σ_t log p(c_gt | x, c_g<t) / |c_g|

    for a row x with the choices c_1, c_2, … of which c_g is right. So a choice wins in training by what it wins by in
    the test: `task.score` gives d_k (1; tokens; characters), and where a choice begins another all end with their turn.

    The first term is T-Few's length-normalised loss (Liu et al. 2022, arXiv 2205.05638), which has
    d_k = |c_k| whatever the test ranks by. T-Few adds it to the gold loss and to one for unlikelihood, all with the
    weight 1, and trains weights; here the gold loss is optional, there is no unlikelihood, and a prompt is trained.

    Args:
        rows: by the id of the example.
    """

    rows: Mapping[str, RowChoices]
    choice_weight: float = 1.0
    gold_weight: float = 0.0

    @property
    def longest(self) -> int:
        return max((len(ids) for row in self.rows.values() for ids in row.choices.ids), default=0)

    def num_terms(self, batch: Sequence[Example]) -> int:
        return len(batch)

    def num_tokens(self, example: Example) -> int:
        """Of several tokens, a choice adds all but its first, which the conversation's last token predicts."""
        return 1 + sum(len(ids) - 1 for ids in self.rows[example.id].choices.ids)

    def total(self, batch: Sequence[Example], passes: Passes) -> Tensor:
        rows = [self.rows[example.id] for example in batch]
        absolute = self.gold_weight > 0 or any(len(set(row.divisors)) > 1 for row in rows)
        scores = passes.choice_scores([row.choices.ids for row in rows], absolute)
        most = scores.shape[1]
        padded = [[*row.divisors, *[1] * (most - len(row.divisors))] for row in rows]
        divisors = placed(padded, scores.device, scores.dtype)
        gold = placed([row.gold for row in rows], scores.device)
        total = self.choice_weight * cross_entropy(scores / divisors, gold, reduction="sum")
        if self.gold_weight:
            lengths = placed([len(row.choices.ids[row.gold]) for row in rows], scores.device)
            total = total - self.gold_weight * (scores.gather(1, gold[:, None]).squeeze(1) / lengths).sum()
        return total


def row_choices(rows: Iterable[Row], choices: Mapping[tuple[str, ...], Choices], rule: Rule) -> dict[str, RowChoices]:
    """The choices of every row by its id, from the token ids of each set of choices."""
    divisors = dict[tuple[str, ...], tuple[int, ...]]()
    for names, one in choices.items():
        num_tokens = dict(zip(names, map(len, one.ids), strict=True))
        divisors[names] = tuple(divisor(name, num_tokens, rule) for name in names)
    return {
        row.id: RowChoices(choices[row.choices], divisors[row.choices], row.choices.index(row.target)) for row in rows
    }
