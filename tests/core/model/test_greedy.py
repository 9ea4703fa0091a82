"""Every setting of generation is known, with a value that changes nothing."""

from __future__ import annotations

from transformers import GenerationConfig

from embedgrad_cli.core.model.greedy import KEPT, NEUTRAL, changes_likeliest, greedy_settings, neutral_arguments


def test_every_setting_of_transformers_is_decided_on() -> None:
    """A new one fails here, until it is put into one of the lists."""
    keys = {key for key in vars(GenerationConfig()) if not key.startswith("_")}
    assert keys == {*NEUTRAL, *KEPT, "eos_token_id"}
    defaults = GenerationConfig._get_default_generation_params()
    assert {key: NEUTRAL[key] for key in defaults if key in NEUTRAL} == {
        key: value for key, value in defaults.items() if key in NEUTRAL
    }


def test_a_model_that_says_nothing_needs_no_arguments() -> None:
    assert neutral_arguments(GenerationConfig(pad_token_id=0, temperature=1.0)) == {"do_sample": False}
    assert changes_likeliest(GenerationConfig(do_sample=True, top_p=0.8, num_beams=4)) == {}


def test_what_is_not_known_is_left_out_of_an_export() -> None:
    settings = {"pad_token_id": 3, "bos_token_id": None, "max_length": 9, "of_next_year": 1, "suppress_tokens": [1]}
    written = greedy_settings(settings, {7, 5}, suppressed=[8])
    assert written["pad_token_id"] == 3
    assert written["max_length"] == 9
    assert written["eos_token_id"] == [5, 7]
    assert written["suppress_tokens"] == [8]
    assert written["do_sample"] is False
    assert not {"of_next_year", "bos_token_id"} & written.keys()
