from __future__ import annotations

from embedgrad_cli.core.text.marked_tokens import Example, trunk_length


def test_trunk_is_the_longest_common_prefix_short_of_the_last_token() -> None:
    def trunk(*tokens: tuple[int, ...]) -> int:
        return trunk_length([Example(str(i), t, (1,)) for i, t in enumerate(tokens)])

    assert trunk((5, -1, -2, 7, 8), (5, -1, -2, 9)) == 3
    assert trunk((5, 6), (5, 6)) == 1
    assert trunk((5, -1, 6), (5, 7, -1)) == 1
    assert trunk((4,), (5,)) == 0
    assert trunk() == 0
