"""Texts at which a generated answer ends, as lm-evaluation-harness's `until`.

A stop string may begin and end within tokens, so it is looked for in what the tokens say. Special tokens say nothing,
but those that a stop string names ("<|im_end|>"). An answer has the fewest tokens whose text holds one: that depends on
the answer alone, not on its batch.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

MARGIN = 8  # tokens of a tail beyond one per byte: its first ones may be parts of a character, and some have no text


@dataclass(frozen=True)
class StopStrings:
    """Looks for any of `texts` in token ids. Without texts nothing is ever found.

    Args:
        tokenizer: of the model that generates.
    """

    texts: tuple[str, ...]
    tokenizer: Any

    def ends(self, ids: Sequence[int]) -> bool:
        """Whether the last token completed a stop string. Of a long answer only the tail is decoded, token by token."""
        if not self.texts:
            return False
        longest = max(len(text.encode()) for text in self.texts) + MARGIN
        return self._are_in(ids[-longest:]) and self._are_in(ids)

    def num_tokens(self, ids: Sequence[int]) -> int | None:
        """The fewest first tokens whose text holds a stop string; None if even all do not."""
        if not self.texts or not self._are_in(ids):
            return None
        return bisect_left(range(len(ids)), True, key=lambda n: self._are_in(ids[:n]))

    def text_before(self, ids: Sequence[int]) -> str:
        """What stands before the first stop string, without special tokens; all of the text if there is none."""
        text = self._decode(ids)
        found = [at for at in map(text.find, self.texts) if at >= 0]
        if not found:
            return self.tokenizer.decode(list(ids), skip_special_tokens=True)
        before = text[: min(found)]
        # The last token before a stop string may hold its beginning, or the beginning of a character.
        whole = next(n for n in range(len(ids), -1, -1) if before.startswith(self._decode(ids[:n])))
        rest = before[len(self._decode(ids[:whole])) :]
        return self.tokenizer.decode(list(ids[:whole]), skip_special_tokens=True) + rest

    def _are_in(self, ids: Sequence[int]) -> bool:
        text = self._decode(ids)
        return any(stop in text for stop in self.texts)

    def _decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode([token for token in ids if token not in self._silent])

    @cached_property
    def _silent(self) -> set[int]:
        """The special tokens that no stop string names."""
        added = self.tokenizer.added_tokens_decoder.items()
        return {i for i, token in added if token.special and not any(token.content in text for text in self.texts)}
