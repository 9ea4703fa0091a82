"""Tiny models and a tokenizer, made on the spot: no network, no files but the test's own."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Some virtual machines announce AMX and cannot run it: a bfloat16 product there is an illegal instruction.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
if "PYTEST_XDIST_WORKER" in os.environ:  # as many processes as cores: with more threads they would wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from embedgrad_cli.config.schema import (
    EvaluateConfig,
    EvaluationConfig,
    GenerationConfig,
    Message,
    ModelConfig,
    ObjectiveConfig,
    OptimizeConfig,
    OptimizerConfig,
    PromptConfig,
    SeedConfig,
    TemplateConfig,
    TrainConfig,
    TrustRegionConfig,
)
from embedgrad_cli.config.task_schema import EvaluatedTaskConfig, HubConfig, SplitConfig, TaskConfig
from embedgrad_cli.core.kernels.shared_prefix_attention import prepare_attention
from embedgrad_cli.core.model.language_model import LanguageModel

SHARED_DATA = Path(__file__).parents[1].parent / "shared" / "data"

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CORPUS = [
    "Please reason step by step. Solve the problem and give the answer.",
    "Tom has 3 apples and buys 12 more. How many apples does he have now?",
    "Ana read 4 pages a day for 7 days, then 9 more pages. How many pages did she read?",
    "system user assistant positive negative a gripping, funny and humane film",
]
PLACEMENTS = {
    "system": TemplateConfig([Message("system", "{prompt}"), Message("user", "{query}")], "{prompt}\n{query}\n"),
    "before-query": TemplateConfig([Message("user", "{prompt}\n{query}")], "{prompt}\n{query}\n"),
    "after-query": TemplateConfig([Message("user", "{query}\n{prompt}")], "{query}\n{prompt}\n"),
    "both-sides": TemplateConfig(
        [Message("system", "{prompt.0}"), Message("user", "{query}\n{prompt.1}")],
        "{prompt.0}\n{query}\n{prompt.1}\n",
    ),
}
SEEDS = ["Please reason step by step.", "Give the answer."]


@dataclass(frozen=True)
class Row:
    id: str
    query: str
    target: str
    answer: str = ""
    choices: tuple[str, ...] = ()


ROWS = [
    Row("train:0", "Tom has 3 apples.", "3 apples\n#### 3"),
    Row(
        "train:1",
        "Ana read 4 pages a day for 7 days, then 9 more pages. How many?",
        "4 * 7 = 28\n28 + 9 = 37\n#### 37",
    ),
    Row("train:2", "Tom buys 12 more apples. How many apples does he have now?", "#### 15"),
    Row("train:3", "How many?", "7"),
    Row("train:4", "Solve the problem: 3 and 12 more.", "3 + 12 = 15\n#### 15"),
]


def shared_data(name: str) -> Path:
    """A folder of real data files, or a skip with the reason."""
    folder = SHARED_DATA / name
    if not folder.exists():
        pytest.skip(f"the real files are not here: {folder.name} is looked for in ../shared/data")
    return folder


def make_tokenizer(chat: bool = True) -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(CORPUS, trainer)
    end = "<|im_end|>" if chat else "<|endoftext|>"
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=end, pad_token="<|endoftext|>")
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def sentencepiece_tokenizer() -> PreTrainedTokenizerFast:
    """One that marks the beginnings of words, as Llama 2's does, without a chat template."""
    bpe = Tokenizer(models.BPE(unk_token="<unk>"))
    bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    bpe.decoder = decoders.Metaspace(prepend_scheme="first")
    alphabet = sorted({*"".join(CORPUS), "\u2581", *"\n#=[]/*+-0123456789"})
    specials = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<unk>"
    )


# Of tiny models in the style of Llama.
SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.1,  # with the usual 0.02 a random model hardly listens to its prompt
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}


def make_network(architecture: str, vocab_size: int) -> torch.nn.Module:
    """A random causal LM of two layers in the shape of a known family."""
    import transformers as tf

    shape = {**SHAPE, "vocab_size": vocab_size}
    gpt2 = {"vocab_size": vocab_size, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
    nemotron_h = {
        "hybrid_override_pattern": "M*-",
        "head_dim": 8,
        "mamba_num_heads": 4,
        "mamba_head_dim": 16,
        "ssm_state_size": 16,
        "n_groups": 2,
    }
    sight = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {"vision_config": {**sight, "image_size": 28, "patch_size": 14}, "mm_tokens_per_image": 4}
    makers = {
        "qwen2": lambda: tf.Qwen2ForCausalLM(tf.Qwen2Config(**shape)),
        "qwen3": lambda: tf.Qwen3ForCausalLM(tf.Qwen3Config(**shape, head_dim=8)),
        "llama": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**shape)),
        "gemma": lambda: tf.GemmaForCausalLM(tf.GemmaConfig(**shape, head_dim=8)),
        "gemma2": lambda: tf.Gemma2ForCausalLM(tf.Gemma2Config(**shape, head_dim=8, sliding_window=16)),
        "gpt2": lambda: tf.GPT2LMHeadModel(tf.GPT2Config(**gpt2, bos_token_id=0, eos_token_id=0)),
        "mistral": lambda: tf.MistralForCausalLM(tf.MistralConfig(**shape, sliding_window=16)),
        "mamba": lambda: tf.MambaForCausalLM(
            tf.MambaConfig(
                vocab_size=vocab_size, hidden_size=32, num_hidden_layers=2, state_size=4, initializer_range=0.4
            )
        ),
        "gpt_neox": lambda: tf.GPTNeoXForCausalLM(tf.GPTNeoXConfig(**shape)),
        "phi": lambda: tf.PhiForCausalLM(tf.PhiConfig(**shape)),
        "mixtral": lambda: tf.MixtralForCausalLM(tf.MixtralConfig(**shape, num_local_experts=2)),
        "nemotron_h": lambda: tf.NemotronHForCausalLM(
            tf.NemotronHConfig(**{**shape, "num_hidden_layers": 3}, **nemotron_h)
        ),
        "minimax": lambda: tf.MiniMaxForCausalLM(
            tf.MiniMaxConfig(
                **shape, head_dim=8, num_local_experts=2, layer_types=["linear_attention", "full_attention"]
            )
        ),
        "gemma3": lambda: tf.Gemma3ForConditionalGeneration(
            tf.Gemma3Config(text_config={**shape, "head_dim": 8, "sliding_window": 16}, **vision)
        ),
    }
    torch.manual_seed(0)
    return makers[architecture]().requires_grad_(False).eval()


def make_model(architecture: str = "qwen2", chat: bool = True) -> LanguageModel:
    """As `load_model` would load it."""
    tokenizer = make_tokenizer(chat)
    network = make_network(architecture, len(tokenizer))
    return LanguageModel(network, tokenizer, f"tests/{architecture}", None, chat, prepare_attention(network))


@pytest.fixture
def model() -> LanguageModel:
    return make_model()


@pytest.fixture(scope="session", autouse=True)
def unpacked_models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where GGUF files are unpacked: nothing of a test stays in the user's cache."""
    from huggingface_hub import constants

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HOME", str(tmp_path_factory.mktemp("hub")))
        yield


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random chat model as a folder that `model.path` can name."""
    folder = tmp_path_factory.mktemp("model")
    model = make_model()
    model.network.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def choice_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-label task that even a random model can be steered to: the label follows the query's first word."""
    folder = tmp_path_factory.mktemp("choice")
    for split, start, count in [("train", 0, 24), ("validation", 100, 8), ("test", 200, 12)]:
        rows = [{"text": f"{'apples' if i % 2 else 'pages'} number {start + i}", "label": i % 2} for i in range(count)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def optimize_config(output_dir: Path, model_path: Path, data_dir: Path, **changes: Any) -> OptimizeConfig:
    """A complete configuration of a few steps; `changes` are dotted keys with `__` for the dot."""
    config = OptimizeConfig(
        output_dir=str(output_dir),
        seed=0,
        device="cpu",
        log_level="info",
        model=ModelConfig(str(model_path), None, "float32", "auto", False),
        template=copy.deepcopy(PLACEMENTS["system"]),
        prompt=PromptConfig(SEEDS[0]),
        task=TaskConfig(
            name="first-word",
            kind="choice",
            data_dir=str(data_dir),
            hub=HubConfig(None, None, None),
            field=None,
            query="{text}",
            target="{label}",
            remove=None,
            target_pattern=None,
            labels={"0": "negative", "1": "positive"},
            choices=["negative", "positive"],
            choices_pattern=None,
            keep=[],
            fewshot=0,
            fewshot_style="text",
            grader="label",
            score="sum",
            extraction="lenient",
            split=SplitConfig(["train"], ["validation"], ["test"], None, None, None, None),
            fold=None,
            broken="error",
            max_new_tokens=8,
            stop=None,
            too_long="error",
        ),
        objective=ObjectiveConfig("gold", 1.0, 0.0),
        optimizer=OptimizerConfig("adamw", 0.1, [0.9, 0.999], 0.9, 0.0, "cosine", 2, 1.0),
        trust_region=TrustRegionConfig("ball", 0.5, 1.0),
        train=TrainConfig(
            steps=6,
            batch_size=8,
            tokens_per_batch=None,
            micro_batch_size="auto",
            cache_queries="auto",
            checkpoint_activations=False,
            eval_every=2,
            patience=None,
            checkpoint_every=1,
            average=None,
            token_dropout=None,
        ),
        evaluation=EvaluationConfig(batch_size=8, breakdown=None),
    )
    return _changed(config, changes)


def evaluate_config(
    like: OptimizeConfig, output_dir: Path, artifact: str | None = None, **changes: Any
) -> EvaluateConfig:
    """The evaluation of what `like` optimises; `changes` as in `optimize_config`."""
    parts = copy.deepcopy(like)
    config = EvaluateConfig(
        output_dir=str(output_dir),
        seed=0,
        device="cpu",
        log_level="info",
        artifact=artifact,
        arms=["none", "seed", "optimized"],
        baseline=None,
        split="test",
        mode="full",
        model=parts.model,
        template=parts.template,
        prompt=SeedConfig(parts.prompt.text),
        task=EvaluatedTaskConfig(**vars(parts.task), overlap="error"),
        generation=GenerationConfig(num_samples=1, temperature=0.0, top_p=1.0, seed=0),
        evaluation=parts.evaluation,
    )
    return _changed(config, changes)


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths lead into a folder of the test's own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def records(capsys: pytest.CaptureFixture[str]) -> Callable[..., list[dict[str, Any]]]:
    """`embedgrad compare` as JSON."""
    from embedgrad_cli.cli import main as cli

    def compare(*arguments: str) -> list[dict[str, Any]]:
        code = cli.main(["compare", *arguments, "--format", "json"])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return json.loads(captured.out)

    return compare


def samples(run: Path) -> list[dict[str, Any]]:
    """The lines of samples.jsonl, without the seconds, which differ between runs."""
    lines = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def _changed(config: Any, changes: dict[str, Any]) -> Any:
    for key, value in changes.items():
        *path, name = key.split("__")
        target: Any = config
        for part in path:
            target = getattr(target, part)
        if not hasattr(target, name):
            raise AttributeError(key)
        setattr(target, name, value)
    return config
