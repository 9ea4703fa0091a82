from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.conftest import make_model

from embedgrad_cli.config.schema import ModelConfig
from embedgrad_cli.core.model.load import load_model
from embedgrad_cli.errors import ModelError

CPU = torch.device("cpu")


def settings(path: Path | str, **changes: object) -> ModelConfig:
    values = {"path": str(path), "revision": None, "dtype": "float32", "template": "auto", "trust_remote_code": False}
    return ModelConfig(**(values | changes))  # type: ignore[arg-type]


def test_the_embedded_model_loads_frozen() -> None:
    model = load_model(settings("embedded:tiny"), CPU)
    assert model.is_chat
    assert not any(p.requires_grad for p in model.network.parameters())
    assert model.tokenizer.decode([model.turn_end_id]) == "<|im_end|>"
    assert model.turn_end_id in model.end_ids


def test_a_folder_that_is_no_model_is_described(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ModelError, match=r"model\.path=.*notes\.txt"):
        load_model(settings(tmp_path), CPU)


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    model = make_model()
    model.network.config.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    torch.save(model.network.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"\*\.safetensors"):
        load_model(settings(tmp_path), CPU)


def test_a_chat_template_that_is_not_there_is_not_invented(tmp_path: Path) -> None:
    model = make_model(chat=False)
    model.network.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"model\.template=plain"):
        load_model(settings(tmp_path, template="chat"), CPU)
    assert not load_model(settings(tmp_path), CPU).is_chat


@pytest.fixture
def capped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Gemma 2 with a cap on attention so small that one hears it, for a transformers that takes sdpa by itself."""
    from transformers import Gemma2PreTrainedModel

    model = make_model("gemma2")
    model.network.config.attn_logit_softcapping = 0.02
    model.network.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    monkeypatch.setattr(Gemma2PreTrainedModel, "_supports_sdpa", True)
    return tmp_path


def test_a_cap_on_attention_is_kept(capped: Path) -> None:
    from transformers import AutoModelForCausalLM

    ids = torch.arange(3, 40)[None]
    eager = AutoModelForCausalLM.from_pretrained(capped, attn_implementation="eager")
    logits = load_model(settings(capped), CPU).network(ids).logits
    assert torch.equal(logits, eager(ids).logits)
    eager.config.attn_logit_softcapping = None
    for layer in eager.model.layers:
        layer.self_attn.attn_logit_softcapping = None
    assert (logits - eager(ids).logits).abs().max() > 1e-3


def test_attention_that_would_leave_a_cap_out_is_refused(capped: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.attention=sdpa"):
        load_model(settings(capped, attention="sdpa"), CPU)


@pytest.mark.parametrize("attention", [None, "eager", "sdpa"])
def test_attention_is_chosen_and_gives_the_same_numbers(attention: str | None) -> None:
    model, fast = (
        load_model(settings("embedded:tiny", attention=attention), CPU),
        load_model(settings("embedded:tiny"), CPU),
    )
    assert (model.network.config._attn_implementation == "eager") is (attention == "eager")
    assert model.reads_trunk_in_place is (attention != "eager")
    ids = torch.arange(3, 40)[None]
    torch.testing.assert_close(model.network(ids).logits, fast.network(ids).logits, rtol=1e-4, atol=1e-4)
