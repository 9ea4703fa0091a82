from __future__ import annotations

import pytest
from tests.conftest import make_model


def test_the_unit_of_the_learning_rate_is_what_the_model_sees() -> None:
    """Gemma scales inside its embedding module; its table alone would be the wrong unit."""
    gemma = make_model("gemma")
    table = gemma.network.get_input_embeddings().weight.float()
    scaled = table.square().mean().sqrt().item() * gemma.hidden_size**0.5
    assert gemma.embedding_rms == pytest.approx(scaled, rel=1e-2)


def test_fingerprints_tell_models_apart() -> None:
    assert make_model("qwen2").fingerprint == make_model("qwen2").fingerprint
    assert make_model("qwen2").fingerprint.config != make_model("llama").fingerprint.config
    assert make_model("qwen2").fingerprint.tokenizer != make_model("qwen2", chat=False).fingerprint.tokenizer
