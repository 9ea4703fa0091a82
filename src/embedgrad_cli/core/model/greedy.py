"""What "greedy" means, wherever an answer is generated: at each step the token with the largest logit.

A model's `generation_config` may say otherwise: penalties, forbidden, forced and suppressed tokens, sampling, beams.
Evaluation asks the network itself and never sees these settings. `transformers` obeys them in every `generate`, and
servers read some of them from an exported folder (vLLM and SGLang: the penalty of repetition and the settings of
sampling). So exports leave them out, and `neutral_arguments` undoes them in a call.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

# What decides none of an answer's tokens: special tokens (the ends of an answer are written anew), and its length.
KEPT = ("bos_token_id", "pad_token_id", "max_length", "max_new_tokens", "transformers_version")

# What changes which token is the likeliest, with the value that changes nothing.
LIKELIEST: dict[str, Any] = {
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "bad_words_ids": None,
    "sequence_bias": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "min_length": 0,
    "min_new_tokens": None,
    "exponential_decay_length_penalty": None,
    "guidance_scale": None,
    "watermarking_config": None,
    "remove_invalid_values": False,
    "renormalize_logits": None,
    "token_healing": None,
}

# That, and everything else of `transformers.GenerationConfig` that may change which token comes next, where an answer
# ends, or what `generate` returns. A test compares the keys with those of the installed transformers.
NEUTRAL: dict[str, Any] = LIKELIEST | {
    # drawing
    "do_sample": False,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "min_p": None,
    "top_h": None,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    # beams and other searches
    "num_beams": 1,
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    "length_penalty": 1.0,
    "early_stopping": False,
    "constraints": None,
    "force_words_ids": None,
    "penalty_alpha": None,
    "dola_layers": None,
    "low_memory": None,
    # where an answer ends, and what is returned
    "max_time": None,
    "stop_strings": None,
    "num_return_sequences": 1,
    "output_attentions": None,
    "output_hidden_states": None,
    "output_scores": False,
    "output_logits": None,
    "return_dict_in_generate": False,
    # how it is computed: drafts, caches that round, chunks
    "use_mtp": None,
    "is_assistant": None,
    "num_assistant_tokens": 20,
    "num_assistant_tokens_schedule": "constant",
    "assistant_confidence_threshold": 0.4,
    "prompt_lookup_num_tokens": None,
    "max_matching_ngram_size": None,
    "assistant_early_exit": None,
    "assistant_lookbehind": 10,
    "target_lookbehind": 10,
    "assistant_ensemble_weight": None,
    "speculation_type": None,
    "use_cache": True,
    "cache_implementation": None,
    "cache_config": None,
    "max_cache_len": None,
    "prefill_chunk_size": None,
    "continuous_batching_config": None,
    "compile_config": None,
    "disable_compile": None,
    # of models with an encoder
    "decoder_start_token_id": None,
}

# Said even where a model says nothing, because some programs have other defaults: a pipeline of transformers draws, and
# so does vLLM. vLLM takes temperature 0 for greedy; transformers does not look at it while `do_sample` is false.
ALWAYS: dict[str, Any] = {
    "do_sample": False,
    "num_beams": 1,
    "repetition_penalty": 1.0,
    "temperature": 0.0,
    "top_p": 1.0,
}


def greedy_settings(settings: dict[str, Any], end_ids: Iterable[int], suppressed: Iterable[int] = ()) -> dict[str, Any]:
    """What an export writes as `generation_config.json`.

    What is not known to be harmless is left out, so that a newer library finds nothing in it to obey.

    Args:
        settings: the model's own `generation_config.json`.
        end_ids: the tokens that ended answers in training and evaluation: a base model's own end of text is often
            another one.
        suppressed: tokens that evaluation could not generate either, as they are the export's own.
    """
    kept = {key: settings[key] for key in KEPT if settings.get(key) is not None}
    lists = {"eos_token_id": sorted(end_ids), "suppress_tokens": sorted(suppressed)}
    return kept | ALWAYS | {key: ids for key, ids in lists.items() if ids}


def neutral_arguments(generation_config: Any) -> dict[str, Any]:
    """Arguments of `generate` that undo what a model's `generation_config` says, as far as it says something.

    None counts as an argument there, so it undoes a setting that has no other neutral value.
    """
    return {"do_sample": False} | {key: NEUTRAL[key] for key in NEUTRAL if _says_more(generation_config, key)}


def changes_likeliest(generation_config: Any) -> dict[str, Any]:
    """The settings of a model that change its greedy answers where nothing undoes them, and their values."""
    return {key: getattr(generation_config, key) for key in LIKELIEST if _says_more(generation_config, key)}


def _says_more(generation_config: Any, key: str) -> bool:
    value = getattr(generation_config, key, None)
    return value is not None and value != NEUTRAL[key]
