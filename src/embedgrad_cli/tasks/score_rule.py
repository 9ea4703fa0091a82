"""How the log-likelihoods of choices become comparable: by `task.score`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Rule = Literal["sum", "mean", "normalized"]


def divisor(name: str, num_tokens: Mapping[str, int], rule: Rule) -> int:
    """What a choice's log-likelihood, the sum over its tokens, is divided by before it is ranked.

    Args: num_tokens: how many these are, by choice; `mean` alone asks for it.
    """
    if rule == "sum":
        return 1
    return num_tokens[name] if rule == "mean" else len(name)
