"""Every setting: its type, its range and a few words. The defaults stand in `conf/`.

One dataclass per config group, that of `task` in `task_schema`, and at the end one per subcommand: `OptimizeConfig`,
`EvaluateConfig`, `ExportConfig`. `config.build` turns a composed Hydra config into these and reports every problem at
once; the rest of the program sees only these classes. Nothing heavy is imported here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from embedgrad_cli.config.setting import group, setting
from embedgrad_cli.config.task_schema import EvaluatedTaskConfig, TaskConfig

# Settings and groups of them that change no result: a resumed run may have others, no artifact records them, and two
# runs that differ in nothing else are the same run.
WITHOUT_EFFECT = (
    *("output_dir", "device", "log_level", "mode", "launch", "report", "tracker", "quiet"),
    "engine_args.gpu_memory_utilization",
    *("requests.at_once", "requests.timeout", "requests.retries", "requests.api_key", "texts.api_key"),
)


def with_effect(settings: dict[str, Any]) -> dict[str, Any]:
    """All settings as nested dicts, without those that change no result. A mapping that held no other is null."""
    kept = {key: value for key, value in settings.items() if key not in WITHOUT_EFFECT}
    for part, _, name in (key.partition(".") for key in WITHOUT_EFFECT):
        inner = kept.get(part)
        if isinstance(inner, dict) and name in inner:
            kept[part] = {key: value for key, value in inner.items() if key != name} or None
    return kept


@dataclass
class Message:
    """One turn of a conversation template."""

    role: str = setting("system, user or assistant")
    content: str = setting("text with {prompt} and/or {query}")


@dataclass
class ModelConfig:
    path: str = setting("hub id, local folder, GGUF file, or embedded:tiny")
    revision: str | None = setting("hub revision (branch, tag or commit)")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = setting(
        "precision of the frozen weights; auto: bfloat16 on CUDA; else as stored, on a CPU float32 where that is faster"
    )
    template: Literal["auto", "chat", "plain"] = setting("chat template, plain text, or what the tokenizer has")
    trust_remote_code: bool = setting("run Python code that comes with the model", right=True)
    chat_template_kwargs: dict[str, Any] | None = setting(
        "what the chat template is told: {enable_thinking: false}", default=None
    )
    chat_template_date: str | None = setting(
        "the day that a chat template with today's date writes, YYYY-MM-DD; null: the day the run began", default=None
    )
    attention: Literal["eager", "sdpa"] | None = setting(
        "how attention is computed; null: as fast as is exact", default=None
    )
    quantization: Literal["nf4", "int8"] | None = setting(
        "pack the frozen weights in 4 or 8 bits while they are loaded; null: as stored", default=None
    )


@dataclass
class TemplateConfig:
    messages: list[Message] = setting("the conversation, for models with a chat template; template=system gives one")
    text: str = setting("the plain text, for models without one")


@dataclass
class PromptConfig:
    text: str | list[str] = setting("the seed prompt; a list fills {prompt.0}, {prompt.1}, …")
    demonstrations: int | None = setting(
        "so many training rows, as text, in the seed prompt; null: none", minimum=0, default=None
    )


@dataclass
class SeedConfig:
    """`PromptConfig` for a command that may do without a seed."""

    text: str | list[str] | None = setting("the seed prompt, for the arm seed; a list fills {prompt.0}, {prompt.1}, …")
    demonstrations: int | None = setting(
        "so many training rows, as text, in the seed prompt; null: none", minimum=0, default=None
    )


@dataclass
class OptimizerConfig:
    name: Literal["adamw", "adam", "sgd"] = setting("the update rule")
    lr: float = setting("learning rate, in units of the embedding table's root mean square", above=0)
    betas: list[float] = setting("decay of Adam's two moments")
    momentum: float = setting("momentum of sgd", minimum=0)
    weight_decay: float = setting("pull towards zero (adamw decouples it)", minimum=0)
    schedule: Literal["constant", "linear", "cosine"] = setting("course of the learning rate after warm-up")
    warmup_steps: int = setting("steps over which the learning rate rises from 0", minimum=0)
    max_grad_norm: float | None = setting("clip the gradient to this norm; null does not", above=0)


@dataclass
class ObjectiveConfig:
    name: Literal["gold", "choice", "verified", "reward", "distill"] | None = setting(
        "what is minimised; null: what suits the task's kind"
    )
    choice_weight: float = setting("choice: weight of the softmax over the choices' scores", above=0)
    gold_weight: float = setting("choice: weight of the gold choice's loss per token", minimum=0)
    teacher: str | None = setting(
        "whose answers are learnt: a text, a file .txt or .md that holds one, or a .safetensors prompt; "
        "null: those of the prompt in training",
        default=None,
    )
    samples: int | None = setting("answers that are drawn for a training row", minimum=1, default=None)
    temperature: float | None = setting("at which they are drawn; 0 takes the likeliest", minimum=0, default=None)
    keep: int | None = setting("verified: right answers of a row that are trained on, at most", minimum=1, default=None)
    rounds: int | None = setting(
        "verified: equal parts of the run that begin with new answers", minimum=1, default=None
    )
    unsolved: Literal["gold", "skip"] | None = setting(
        "verified: train rows without a right answer on the data's target, or not at all", default=None
    )
    mask: float | None = setting(
        "gold, verified: leave out target tokens that the seed finds less probable; null: none",
        above=0,
        maximum=1,
        default=None,
    )
    reward: str | None = setting(
        "reward: the Python function, MODULE:FUNCTION, that is called with query, answer and target and returns a "
        "number; null: the task's grader, 1 for a right answer",
        right=True,
        default=None,
    )
    teacher_examples: int | None = setting(
        "distill: so many training rows stand behind the teacher's words as worked examples", minimum=1, default=None
    )
    top: int | None = setting(
        "distill: tokens at each place of an answer whose likelihoods are learnt", minimum=1, default=None
    )


# What is minimised where nothing is chosen.
OBJECTIVES: dict[str, Literal["gold", "choice"]] = {"choice": "gold", "generation": "gold"}


@dataclass
class TrustRegionConfig:
    kind: Literal["ball", "none", "penalty"] = setting("how the prompt is kept near its seed")
    radius: float = setting("ball: largest distance per token, in RMS x sqrt(hidden size)", above=0)
    weight: float = setting("penalty: weight of the mean squared distance in the loss", minimum=0)


@dataclass
class TrainConfig:
    steps: int = setting("optimiser steps", minimum=0)
    batch_size: int = setting("examples per optimiser step", minimum=1)
    tokens_per_batch: int | None = setting("tokens per optimiser step, if batch_size is not reached first", minimum=1)
    micro_batch_size: int | Literal["auto"] = setting("examples per forward pass; auto decides by length", minimum=1)
    cache_queries: Literal["auto", "never"] = setting("keep what stands before the prompt in memory, across epochs")
    checkpoint_activations: bool = setting("compute activations again in the backward pass: less memory, more time")
    eval_every: int = setting("steps between validations", minimum=1)
    patience: int | None = setting("stop after so many validations without a better one", minimum=1)
    checkpoint_every: int = setting("steps between checkpoints", minimum=1)
    average: float | None = setting(
        "decay of the moving average of the vectors that is validated and saved; null: the last step's",
        minimum=0,
        maximum=0.9999,
        default=None,
    )
    token_dropout: float | None = setting(
        "probability that a prompt token is its seed's in a step; null: 0", minimum=0, maximum=0.9, default=None
    )


@dataclass
class LaunchConfig:
    processes: int | None = setting(
        "processes that share the rows, on this machine; null: one, or as many as torchrun started",
        minimum=1,
        default=None,
    )
    tensor_parallel: int | None = setting(
        "processes that divide the weights of every layer; null: the model is whole", minimum=2, default=None
    )
    device_map: Literal["auto"] | None = setting(
        "auto: the layers lie on all GPUs, one after the other; null: on one device", default=None
    )


@dataclass
class EvaluationConfig:
    batch_size: int = setting("examples per forward pass in validation and test", minimum=1)
    breakdown: list[str] | None = setting("fields, kept by task.keep, by which results are broken down: [level]")


@dataclass
class GenerationConfig:
    num_samples: int = setting("answers to each question", minimum=1)
    temperature: float = setting("0 takes the likeliest token; above it tokens are drawn", minimum=0)
    top_p: float = setting("draw from the likeliest tokens that hold so much probability", above=0, maximum=1)
    seed: int = setting("seeds the answers that are drawn", minimum=0)


@dataclass
class RequestsConfig:
    """How `server` is asked."""

    model: str | None = setting("model that is asked; null: the only one that the server lists", default=None)
    api_key: str | None = setting("environment variable that holds the server's key; null: no key", default=None)
    at_once: int = setting("requests in flight", minimum=1, default=8)
    timeout: float = setting("seconds that an answer may take", above=0, default=600.0)
    retries: int = setting("further tries after a lost connection, a timeout, 429 or 5xx", minimum=0, default=5)
    extra: dict[str, Any] | None = setting("further keys of every request: {repetition_penalty: 1.0}", default=None)


@dataclass
class TextsConfig:
    """Where the arms none, seed and text are asked, if not where `served` is."""

    server: str | None = setting("a server without the prompt; null: the same one", default=None)
    model: str | None = setting("a model without the prompt; null: the only one that texts.server lists", default=None)
    api_key: str | None = setting("environment variable that holds the key of texts.server", default=None)


@dataclass
class TrackerConfig:
    """What shows a run as well. Keys to it stand in its own environment variables, never here."""

    name: Literal["none", "tensorboard", "wandb", "mlflow", "trackio"] = setting(
        "what shows the run as well: its settings, curves, final table and files", right=True, default="none"
    )
    project: str = setting("the tracker's project, or experiment, that the run is in", default="embedgrad")
    run: str | None = setting("what the run is called there; null: as its folder", default=None)
    place: str | None = setting(
        "where the tracker keeps it: a folder; of mlflow also an address; null: its choice", right=True, default=None
    )
    timeout: float = setting(
        "seconds for which the tracker may fail to answer, and for its end", above=0, default=120.0
    )


@dataclass
class OptimizeConfig:
    output_dir: str = setting("the run directory; the same one again resumes")
    seed: int = setting("seeds the split and the order of examples", minimum=0)
    device: str = setting("auto, cpu, cuda, cuda:1, mps")
    log_level: Literal["debug", "info", "warning", "error"] = setting("how much is logged")
    model: ModelConfig = setting("the frozen model")
    template: TemplateConfig = setting("where prompt and query stand in the conversation")
    prompt: PromptConfig = setting("the seed prompt")
    task: TaskConfig = setting("data, splits and grading")
    objective: ObjectiveConfig = setting("what is minimised")
    optimizer: OptimizerConfig = setting("how the vectors move")
    trust_region: TrustRegionConfig = setting("how far the vectors move")
    train: TrainConfig = setting("how long and how much at once")
    evaluation: EvaluationConfig = setting("validation and test")
    launch: LaunchConfig = group(LaunchConfig, "on how many processes")
    engine: Literal["vllm"] | None = setting(
        "vllm generates the answers, on the same weights; null: embedgrad's own decoding", default=None
    )
    engine_args: dict[str, Any] | None = setting(
        "further arguments of vllm.LLM: {gpu_memory_utilization: 0.4}", default=None
    )
    report: bool = setting("write report.html into the run directory in the end", default=True)
    quiet: bool = setting("show nothing while it works", default=False)
    tracker: TrackerConfig = group(TrackerConfig, "what shows the run as well")


@dataclass
class EvaluateConfig:
    """Model, template, prompt and task are the artifact's own unless overridden."""

    output_dir: str = setting("the run directory; the same one again resumes")
    seed: int = setting("seeds the split, as in the training", minimum=0)
    device: str = setting("auto, cpu, cuda, cuda:1, mps")
    log_level: Literal["debug", "info", "warning", "error"] = setting("how much is logged")
    artifact: str | None = setting("the prompt.safetensors of the arm optimized")
    arms: list[str] = setting('prompts to compare: none, bare, seed, optimized, served, text:"…", FILE.safetensors')
    baseline: str | None = setting("the arm that the others are compared with; null: seed, or else the first")
    split: Literal["train", "validation", "test"] = setting("which split to evaluate on")
    mode: Literal["full", "predict-only", "regrade"] = setting("answer and grade, only answer, or only grade again")
    model: ModelConfig = setting("the frozen model")
    template: TemplateConfig = setting("where prompt and query stand in the conversation")
    prompt: SeedConfig = setting("the seed prompt")
    task: EvaluatedTaskConfig = setting("data, splits and grading")
    generation: GenerationConfig = setting("how answers are drawn")
    evaluation: EvaluationConfig = setting("batching and breakdowns")
    engine: Literal["vllm"] | None = setting(
        "vllm generates the answers, in this process; null: embedgrad's own decoding", default=None
    )
    engine_args: dict[str, Any] | None = setting(
        "further arguments of vllm.LLM: {gpu_memory_utilization: 0.6}", default=None
    )
    server: str | None = setting("ask this OpenAI-compatible server, https://HOST/v1, and load no model", default=None)
    requests: RequestsConfig = group(RequestsConfig, "how the server is asked")
    texts: TextsConfig = group(TextsConfig, "where texts are asked")
    launch: LaunchConfig = group(LaunchConfig, "on how many processes")
    report: bool = setting("write report.html into the run directory in the end", default=True)
    quiet: bool = setting("show nothing while it works", default=False)
    tracker: TrackerConfig = group(TrackerConfig, "what shows the run as well")


@dataclass
class SearchConfig:
    budget: int = setting("text: forward evaluations (a prompt on a row) of a search; 0 does not search", minimum=0)
    candidates: int = setting("text: swaps of one token that are tried per step", minimum=1)
    top_k: int = setting("text: tokens that the gradient proposes per place", minimum=1)
    batch_size: int = setting("text: training rows on which the swaps of a step are compared", minimum=1)
    eval_every: int = setting("text: steps between validations", minimum=1)


@dataclass
class ExportConfig:
    output_dir: str = setting("where the export goes")
    log_level: Literal["debug", "info", "warning", "error"] = setting("how much is logged")
    seed: int = setting("text: seeds the search", minimum=0)
    device: str = setting("auto, cpu, cuda, cuda:1, mps")
    artifact: str = setting("the prompt.safetensors to export")
    format: str = setting("model, gguf, peft, embeds, text or hub")
    model: ModelConfig = setting("the model the artifact was made for")
    weights: Literal["link", "copy"] = setting("model: unchanged weight files are hard links, or copies")
    data_dir: str | None = setting("text: folder of the task's data; null: where the artifact says")
    search: SearchConfig = setting("text: the search for the best text")
    push: str | None = setting("hub: upload to this repository, OWNER/NAME", right=True)
    yes: bool = setting("hub: upload without asking")
    quantize: str | None = setting("gguf: weights of this type of llama.cpp's, as Q8_0 or Q4_K_M", default=None)
    quantizer: str = setting("gguf: the program that quantises, by name or file", right=True, default="llama-quantize")
