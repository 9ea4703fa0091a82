"""Tiny configs of decoder families: two layers or few more, so that every kind of layer that a family has occurs.

Each is `AutoConfig.for_model(model_type, **shape)`, and its random weights are large enough (`initializer_range`) for a
model to hear its prompt. Windows are shorter than the rows that are checked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

LEFT_OUT = object()  # a setting that this family's config does not take
VOCABULARY = object()  # the number of tokens
WINDOW = 32

SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "initializer_range": 0.1,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "n_group": 1,
    "topk_group": 1,
    "n_shared_experts": 1,
}


@dataclass(frozen=True)
class Family:
    """Its `model_type`, and what its config needs beside or instead of `SHAPE`."""

    model_type: str
    settings: dict[str, Any] = field(default_factory=dict)

    def shape(self, vocabulary: int) -> dict[str, Any]:
        return _filled({**SHAPE, "vocab_size": VOCABULARY, **self.settings}, vocabulary)


def _filled(settings: dict[str, Any], vocabulary: int) -> dict[str, Any]:
    kept = {key: vocabulary if value is VOCABULARY else value for key, value in settings.items()}
    return {
        key: _filled(value, vocabulary) if isinstance(value, dict) else value
        for key, value in kept.items()
        if value is not LEFT_OUT
    }


_SPECIAL = {"bos_token_id": 0, "eos_token_id": 0}
_SLIDING = {"sliding_window": WINDOW}
_MIXED = {**_SLIDING, "layer_types": ["sliding_attention", "full_attention"]}
_FOUR = {"num_hidden_layers": 4}
_LATENT = {  # multi-head latent attention
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "head_dim": LEFT_OUT,
    "num_key_value_heads": 4,
    "first_k_dense_replace": 1,
}
_MAMBA_2 = {
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_d_state": 16,
    "mamba_n_groups": 1,
    "mamba_expand": 2,
}
_LINEAR = {  # gated delta rule
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "layer_types": ["linear_attention", "full_attention"],
    "shared_expert_intermediate_size": 16,
}
_LONG_ROPE = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [9.0] * 4, "rope_theta": 10000.0}
_SIGHT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}

_PLAIN = """
    arcee apertus biogpt bitnet bloom ctrl diffllama doge dots1 ernie4_5 ernie4_5_moe flex_olmo gemma glm glm4 glm4_moe
    gpt2 gpt-sw3 gpt_bigcode gpt_neox gpt_neox_japanese granite granitemoe granitemoeshared helium hunyuan_v1_dense
    hunyuan_v1_moe internlm3 jais2 jetmoe llama llama4_text mixtral minimax_m2 mpt nanochat nemotron olmo olmo2 olmoe
    openai-gpt opt persimmon phi phi3 phimoe qwen2 qwen3 qwen3_moe seed_oss solar_open stablelm starcoder2 vaultgemma
    xglm mamba falcon_mamba rwkv hyperclovax minimax
"""

FAMILIES: dict[str, Family] = {name: Family(name) for name in _PLAIN.split()} | {
    "afmoe": Family("afmoe", _MIXED),
    "bamba": Family("bamba", {**_MAMBA_2, "attn_layer_indices": [1]}),
    "codegen": Family("codegen", {"rotary_dim": 4, "head_dim": LEFT_OUT}),
    "cohere": Family("cohere", {"logit_scale": 1.0}),
    "cohere2": Family("cohere2", {**_MIXED, "logit_scale": 1.0}),
    "cwm": Family("cwm", {**_MIXED, **_SPECIAL}),
    "deepseek_v2": Family("deepseek_v2", _LATENT),
    "deepseek_v3": Family("deepseek_v3", _LATENT),
    "exaone4": Family("exaone4", _MIXED),
    "falcon": Family("falcon", {"head_dim": LEFT_OUT, "num_key_value_heads": LEFT_OUT, **_SPECIAL}),
    "falcon-alibi": Family(
        "falcon", {"head_dim": LEFT_OUT, "num_key_value_heads": LEFT_OUT, "alibi": True, **_SPECIAL}
    ),
    "falcon_h1": Family("falcon_h1", {**_MAMBA_2, "mamba_d_ssm": 64, "embedding_multiplier": 5.0}),
    "gemma2": Family("gemma2", {**_MIXED, "query_pre_attn_scalar": 8}),
    "gemma3": Family(
        "gemma3",
        {
            "text_config": {**SHAPE, **_MIXED, "vocab_size": VOCABULARY},
            "vision_config": {**_SIGHT, "image_size": 28, "patch_size": 14},
            "mm_tokens_per_image": 4,
        },
    ),
    "gemma3_text": Family("gemma3_text", _MIXED),
    "gemma3n_text": Family(
        "gemma3n_text",
        {
            "vocab_size_per_layer_input": VOCABULARY,
            "hidden_size_per_layer_input": 8,
            "num_kv_shared_layers": 0,
            "laurel_rank": 4,
            "altup_num_inputs": 2,
            "num_hidden_layers": 4,
            "intermediate_size": [64] * 4,
            "activation_sparsity_pattern": [0.0] * 4,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "sliding_window": WINDOW,
        },
    ),
    "gemma4_text": Family(
        "gemma4_text",
        {
            **_MIXED,
            "vocab_size_per_layer_input": VOCABULARY,
            "hidden_size_per_layer_input": 8,
            "num_kv_shared_layers": 0,
            "global_head_dim": 8,
        },
    ),
    "glm4_moe_lite": Family("glm4_moe_lite", _LATENT),
    "gpt_neo": Family(
        "gpt_neo",
        {
            "num_layers": 2,
            "num_heads": 4,
            "num_hidden_layers": LEFT_OUT,
            "num_attention_heads": LEFT_OUT,
            "window_size": WINDOW,
            "attention_types": [[["global", "local"], 1]],
            **_SPECIAL,
        },
    ),
    "gpt_oss": Family("gpt_oss", _MIXED),
    "gptj": Family("gptj", {"rotary_dim": 4, "head_dim": LEFT_OUT}),
    "granitemoehybrid": Family(
        "granitemoehybrid", {**_MAMBA_2, "layer_types": ["mamba", "attention"], "shared_intermediate_size": 64}
    ),
    "jamba": Family(
        "jamba",
        {
            **_FOUR,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "mamba_dt_rank": 4,
            "use_mamba_kernels": False,
        },
    ),
    "llama4-chunked": Family(
        "llama4_text",
        {
            "attention_chunk_size": WINDOW,
            "layer_types": ["chunked_attention", "full_attention"],
            "no_rope_layers": [1, 0],
        },
    ),
    "lfm2": Family("lfm2", {"layer_types": ["conv", "full_attention"]}),
    "lfm2_moe": Family("lfm2_moe", {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1}),
    "longcat_flash": Family(
        "longcat_flash",
        {
            **_LATENT,
            "head_dim": 4,
            "num_layers": 2,
            "ffn_hidden_size": 64,
            "expert_ffn_hidden_size": 16,
            "zero_expert_num": 2,
            "moe_topk": 2,
        },
    ),
    "mamba2": Family(
        "mamba2", {"num_heads": 4, "head_dim": 16, "expand": 2, "state_size": 16, "n_groups": 1, "chunk_size": 16}
    ),
    "minicpm3": Family("minicpm3", _LATENT),
    "ministral": Family("ministral", _MIXED),
    "mistral": Family("mistral", {"sliding_window": None}),
    "mistral-sliding": Family("mistral", _SLIDING),
    "modernbert-decoder": Family(
        "modernbert-decoder", {**_SPECIAL, "cls_token_id": 0, "sep_token_id": 0, "head_dim": LEFT_OUT}
    ),
    "nemotron_h": Family(
        "nemotron_h",
        {
            "num_hidden_layers": 3,
            "hybrid_override_pattern": "M*-",
            "mamba_num_heads": 4,
            "mamba_head_dim": 16,
            "ssm_state_size": 16,
            "n_groups": 2,
        },
    ),
    "olmo3": Family("olmo3", _MIXED),
    "olmo_hybrid": Family("olmo_hybrid", {"layer_types": ["linear_attention", "full_attention"]}),
    "phi3-longrope": Family(
        "phi3", {"num_key_value_heads": 4, "rope_parameters": _LONG_ROPE, "original_max_position_embeddings": 60}
    ),
    "qwen2_moe": Family("qwen2_moe", {"shared_expert_intermediate_size": 16}),
    "qwen3_5_text": Family("qwen3_5_text", _LINEAR),
    "qwen3_5_moe_text": Family("qwen3_5_moe_text", _LINEAR),
    "qwen3_next": Family("qwen3_next", _LINEAR),
    "recurrent_gemma": Family(
        "recurrent_gemma",
        {"num_hidden_layers": 3, "attention_window_size": WINDOW, "head_dim": LEFT_OUT, "lru_width": 32},
    ),
    "smollm3": Family("smollm3", {"no_rope_layers": [1, 0]}),
    "xlstm": Family("xlstm", {"head_dim": LEFT_OUT, "num_heads": 4}),
    "zamba2": Family(
        "zamba2",
        {
            **_FOUR,
            **_MAMBA_2,
            "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"],
            "hybrid_layer_ids": [1, 3],
            "mamba_d_state": 16,
            "mamba_ngroups": 1,
            "n_mamba_heads": 4,
            "head_dim": LEFT_OUT,
            "num_key_value_heads": 4,
            "attention_head_dim": 16,
        },
    ),
}
