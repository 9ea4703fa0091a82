"""Which of a row's choices is the answer, by their log-likelihoods.

`sum` and `normalized` are `acc` and `acc_norm` of lm-evaluation-harness. A sum favours short choices, since every token
of a longer one can only lower it; a mean favours those whose later tokens follow from their first.
"""

from __future__ import annotations

from collections.abc import Mapping

from embedgrad_cli.tasks.score_rule import Rule, divisor

WORDS: dict[str, str] = {
    "sum": "the sum of their tokens' log-likelihoods",
    "mean": "their log-likelihood per token",
    "normalized": "their log-likelihood per character",
}


def likeliest(scores: Mapping[str, float], num_tokens: Mapping[str, int], rule: Rule) -> str:
    """The best choice; of equally good ones the first.

    Args:
        scores: the sum over the tokens' log-likelihoods, by choice.
        num_tokens: how many these are.
    """
    return max(scores, key=lambda name: scores[name] / divisor(name, num_tokens, rule))
