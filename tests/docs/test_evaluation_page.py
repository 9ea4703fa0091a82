"""What the commands of docs/evaluation.md leave behind."""

from __future__ import annotations

import json

import pytest
from tests.docs.snippets import snippets
from tests.docs.workplace import Workplace


@pytest.mark.slow
@pytest.mark.long
def test_answers_that_were_graded_later_and_again(workplace: Workplace) -> None:
    for snippet in snippets("docs/evaluation.md"):
        if "Qwen/" not in snippet.text:  # of the hub
            workplace.run(snippet)
    results = json.loads((workplace.folder / "outputs/later/results.json").read_text())
    assert results["comparison"]["baseline"] == "none"
    compared = workplace.command("embedgrad compare outputs --mixed")
    assert "text 1" in compared
    assert "First, think; then answer." in compared, "the legend says what the label stands for"
