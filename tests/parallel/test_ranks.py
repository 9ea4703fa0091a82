"""What ranks share is a partition, and what happens to one of them happens to all."""

from __future__ import annotations

import os
from contextlib import suppress

import pytest
import torch
import torch.distributed as dist
from tests.parallel.processes import results, run

from embedgrad_cli.errors import EmbedgradError, EndedElsewhere, UserError
from embedgrad_cli.parallel.join import joined
from embedgrad_cli.parallel.process_group import Group
from embedgrad_cli.parallel.ranks import ALONE, Part, Ranks, check_same
from embedgrad_cli.storage.interrupts import StopAsked

LENGTHS = [7, 300, 1, 12, 12, 90, 4, 55, 31, 8, 8]


def rank(number: int, count: int) -> Ranks:
    ranks = Ranks()
    ranks.number, ranks.count = number, count
    return ranks


@pytest.mark.parametrize("count", [1, 2, 3, 4, 16])
def test_shares_are_a_partition_of_equal_parts(count: int) -> None:
    shares = [rank(number, count).share(LENGTHS) for number in range(count)]
    assert sorted(row for share in shares for row in share) == list(range(len(LENGTHS)))
    assert all(share == sorted(share) for share in shares)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert ALONE.share(LENGTHS) == list(range(len(LENGTHS))), "one process has the rows in their order"


def test_shares_are_as_long_as_each_other() -> None:
    lengths = list(range(1, 65))
    tokens = [sum(lengths[row] for row in rank(number, 4).share(lengths)) for number in range(4)]
    assert max(tokens) - min(tokens) <= 1


def meet() -> dict[str, object]:
    """Every way in which ranks meet, once."""
    with joined(None, "cpu") as ranks:
        torch.manual_seed(ranks.number)
        numbers = torch.randn(1000)
        total, notes = ranks.sum(lambda: Part(numbers, 10 * ranks.number), 1000)
        gathered = ranks.gather(lambda: {"é": [0.1] * ranks.number, "nan": float("nan")})
        return {
            "total": total.tolist(),
            "notes": notes,
            "own": numbers.tolist(),
            "gathered": [one["é"] for one in gathered],
            "together": ranks.together(lambda: ranks.number),
        }


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_all_get_the_same_sum_to_the_last_bit(count: int) -> None:
    all_of_them = results(count, meet)
    expected = torch.tensor([one["own"] for one in all_of_them]).sum(dim=0)
    assert torch.allclose(torch.tensor(all_of_them[0]["total"]), expected, atol=1e-6)
    for number, one in enumerate(all_of_them):
        assert one["total"] == all_of_them[0]["total"]
        assert one["notes"] == [0, 10, 20][:count]
        assert one["gathered"] == [[0.1] * other for other in range(count)]
        assert one["together"] == number
    assert [one["total"] for one in results(count, meet)] == [one["total"] for one in all_of_them]


def part_of(number: int, how: str) -> object:
    """All meet twice; the second time, one of them has something to say."""
    with joined(None, "cpu") as ranks:

        def work() -> Part:
            if ranks.number == number and how == "wrong":
                raise UserError("a file is missing")
            if ranks.number == number and how == "stopped":
                raise StopAsked
            if ranks.number == number and how == "killed":
                os._exit(9)
            return Part(torch.ones(3))

        ranks.gather(lambda: ranks.number)
        how, _, meeting = how.partition(" ")
        if meeting:
            return ranks.gather(lambda: work().note)
        return ranks.sum(work, 3)[0].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("meeting", ["", " gather"])
def test_what_one_says_ends_all(meeting: str) -> None:
    wrong = run(3, part_of, 1, f"wrong{meeting}")
    assert [one.error for one in wrong] == ["EndedElsewhere", "UserError", "EndedElsewhere"]
    assert [one.exit_code for one in wrong] == [0, 2, 0], "torchrun lets the one that fails come to its end"
    assert wrong[1].message == "a file is missing"
    stopped = run(2, part_of, 1, f"stopped{meeting}")
    assert [one.error for one in stopped] == ["StopAsked"] * 2


def nested(number: int, where: str) -> None:
    """All meet within a work that they also meet after, as when a run is prepared."""
    with joined(None, "cpu") as ranks:

        def say(place: str) -> None:
            if (ranks.number, place) == (number, where):
                raise UserError("a file is missing")

        def work() -> None:
            say("before")
            ranks.gather(lambda: say("inside"))
            say("after")

        ranks.together(work)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["before", "inside", "after"])
def test_what_one_says_in_a_meeting_within_another_ends_all(where: str) -> None:
    ended = run(3, nested, 1, where)
    assert [one.error for one in ended] == ["EndedElsewhere", "UserError", "EndedElsewhere"]
    assert [one.message for one in ended][::2] == ["process 1 of the run has failed"] * 2


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 2])
def test_one_that_dies_ends_all(number: int) -> None:
    ended = run(3, part_of, number, "killed")
    assert ended[number].exit_code == 9
    survivors = [one for one in ended if one.exit_code != 9]
    assert [one.error for one in survivors] == (
        ["EndedElsewhere"] * 2 if number == 0 else ["EmbedgradError", "EndedElsewhere"]
    )


def differ() -> None:
    with joined(None, "cpu") as ranks:
        check_same(ranks, {"configuration": "{}", "checkpoint": f"step {ranks.number}"})


@pytest.mark.slow
def test_ranks_that_work_on_different_things_are_refused() -> None:
    first, second = run(2, differ)
    assert (first.error, first.exit_code, second.error) == ("UserError", 2, "EndedElsewhere")
    assert "process 1" in first.message
    assert "checkpoint" in first.message


def is_still_joined() -> bool:
    with suppress(EmbedgradError):
        differ()
    return dist.is_initialized()


@pytest.mark.slow
def test_an_error_leaves_no_thread_of_the_group() -> None:
    assert results(2, is_still_joined) == [False, False], "the interpreter's end may abort on one (SIGABRT)"


def test_settings_and_processes_have_to_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"launch\.processes=2"), joined(2, "cpu"):
        pass
    with joined(1, "cpu") as ranks:
        assert ranks is ALONE
    for name, value in {"RANK": "0", "WORLD_SIZE": "3", "MASTER_ADDR": "here", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"launch\.processes=2.*3"), joined(2, "cpu"):
        pass


@pytest.mark.parametrize("name", ["cuda:1", "mps", "xpu"])
def test_one_device_is_none_for_each(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    group = Group.__new__(Group)
    group.number, group.size, group.on_this_machine, group.place = 1, 2, 2, 1
    with pytest.raises(UserError, match=name):
        group.device(name)
    assert group.device("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="1 GPUs here for 2 processes"):
        group.device("cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: None)
    assert group.device("auto") == "cuda:1"


def test_an_error_of_all_is_said_by_the_first() -> None:
    error = UserError("wrong")
    group = Group.__new__(Group)
    group.number = 0
    assert group.alike(error) is error
    group.number = 1
    assert isinstance(group.alike(error), EndedElsewhere)
