from __future__ import annotations

from tests.conftest import make_model
from tests.core.passes.parity import encoded_rows

from embedgrad_cli.core.passes.trunk_check import can_share_trunk
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt


def test_known_models_share_their_trunk_and_recurrent_ones_fall_back() -> None:
    for architecture, expected in [("qwen2", True), ("gpt2", True), ("gemma2", True), ("mamba", False)]:
        model = make_model(architecture)
        encoded = encoded_rows(model, "system")
        prompt = SoftPrompt.from_seed(encoded.slots, model)
        assert can_share_trunk(model, encoded.examples, prompt) is expected, architecture
