"""What is wrong with recorded settings is told with the place that recorded them, and how to replace them."""

from __future__ import annotations

import pytest

from embedgrad_cli.config.recorded import Recorded

RECORDED = {"template": {"messages": [{"role": "system"}, {"role": ""}]}, "train": {"steps": 0}}
OTHER = {"template": {"messages": [{"role": "x"}]}, "train": {"steps": -1}}


@pytest.mark.parametrize(
    ("problem", "replaced"),
    [("train.steps: 0 is too small.", "train.steps"), ("template.messages[1].role: '' is none.", "template.messages")],
)
def test_the_place_of_a_recorded_problem_is_named(problem: str, replaced: str) -> None:
    recorded = Recorded(RECORDED, "artifact=FILE", {})
    said = [f"{problem} It was recorded by artifact=FILE; {replaced}=… in this command replaces it."]
    assert recorded.explain([problem], RECORDED) == said
    assert recorded.explain([problem], OTHER) == [problem]
