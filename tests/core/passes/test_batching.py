from __future__ import annotations

from itertools import islice

from embedgrad_cli.core.passes.batching import PASS_COST, PASS_TOKENS, split_by_length, split_packed, training_batches


def test_every_epoch_sees_every_example_once_in_another_order() -> None:
    batches = list(islice(training_batches(range(10), 4, seed=3, first_step=0), 6))
    first, second = ([i for batch in batches[a : a + 3] for i in batch] for a in (0, 3))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


def test_resuming_goes_on_with_the_same_batches() -> None:
    whole = list(islice(training_batches(range(10), 4, seed=3, first_step=0), 9))
    for step in range(9):
        assert list(islice(training_batches(range(10), 4, seed=3, first_step=step), 9 - step)) == whole[step:]


def test_a_seed_may_be_any_number() -> None:
    first, second = (next(training_batches(range(99), 99, seed, first_step=0)) for seed in (10**30, 10**30 + 1))
    assert sorted(first) == list(range(99))
    assert first != second


def test_split_covers_every_row_and_respects_the_limit() -> None:
    lengths = [5, 900, 7, 6, 880, 5, 300]
    for limit in (None, 1, 2, 3):
        parts = split_by_length(lengths, limit)
        assert sorted(i for part in parts for i in part) == list(range(len(lengths)))
        assert limit is None or max(map(len, parts)) <= limit


def test_split_is_worth_its_passes() -> None:
    assert len(split_by_length([20] * 16)) == 1
    assert split_by_length([10, 10, 10, 900]) == [[0, 1, 2], [3]]

    def cost(parts: list[list[int]], lengths: list[int]) -> int:
        return sum(len(p) * max(lengths[i] for i in p) + PASS_COST for p in parts)

    lengths = [13, 400, 250, 40, 90, 380, 15, 60]
    halves = sorted(range(8), key=lengths.__getitem__)
    assert cost(split_by_length(lengths), lengths) <= cost([halves[:4], halves[4:]], lengths)


def test_a_token_budget_closes_a_batch_before_it_is_full() -> None:
    lengths = [3, 9, 4, 4, 7, 2, 5, 6, 12, 1]
    batches = training_batches(lengths, 4, 0, 0, tokens_per_batch=12, length=lambda n: n)
    epoch: list[int] = []
    while len(epoch) < len(lengths):
        batch = next(batches)
        assert len(batch) <= 4
        assert sum(batch) <= 12
        epoch += batch
    assert sorted(epoch) == sorted(lengths)
    again = training_batches(lengths, 4, 0, 3, tokens_per_batch=12, length=lambda n: n)
    whole = list(islice(training_batches(lengths, 4, 0, 0, tokens_per_batch=12, length=lambda n: n), 12))
    assert list(islice(again, 9)) == whole[3:]


def test_an_example_beyond_the_token_budget_is_a_batch_of_its_own() -> None:
    assert sorted(map(len, islice(training_batches([50, 50, 50], 4, 0, 0, 10, lambda n: n), 3))) == [1, 1, 1]


def test_packed_rows_are_split_into_passes_of_one_size() -> None:
    lengths = [5, 900, 7, 6, 880, 5, 300] * 4
    for limit in (None, 1, 3, 100):
        parts = split_packed(lengths, limit)
        assert sorted(row for part in parts for row in part) == list(range(len(lengths)))
        assert all(len(part) <= (limit or len(lengths)) for part in parts)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert split_packed([PASS_TOKENS // 8] * 8) == [list(range(8))]
    assert len(split_packed([PASS_TOKENS // 8] * 9)) == 2
    assert split_packed([9 * PASS_TOKENS]) == [[0]], "a row is never split"
