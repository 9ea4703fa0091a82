"""The model card of an artifact on the hub: a README.md that begins with YAML metadata."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from embedgrad_cli import assets
from embedgrad_cli.config.fields import as_texts
from embedgrad_cli.evaluation.significance import verdict
from embedgrad_cli.storage.arm_records import ArmSummary
from embedgrad_cli.storage.artifact_metadata import ArtifactMetadata, ModelRecord, PromptMetrics, RecordedTask
from embedgrad_cli.storage.gguf_files import SUFFIX
from embedgrad_cli.storage.results_record import Elsewhere

LICENCE = "# license: yours to choose, and the base model's may bind you; embedgrad sets none"
TAGS = ["embedgrad", "soft-prompt", "prompt-tuning"]
ARMS = {
    "none": "the template without any prompt",
    "seed": "the seed text",
    "optimized": "the optimised prompt",
}


def model_card(metadata: ArtifactMetadata, name: str) -> str:
    """The text of README.md.

    Args:
        metadata: of the artifact.
        name: of the repository or folder.
    """
    return f"---\n{_card_data(metadata, name).to_yaml()}\n{LICENCE}\n---\n\n{_body(metadata, name)}"


def _card_data(metadata: ArtifactMetadata, name: str) -> ModelCardData:
    """The hub's metadata. A model or data set of this machine has no name there, so it is left out."""
    task, test = metadata.config.task, metadata.metrics.test
    return ModelCardData(
        library_name="embedgrad",
        pipeline_tag="text-generation",
        tags=TAGS,
        base_model=hub_id(metadata.model.path),
        datasets=[task.hub.path] if task.hub.path else None,
        model_name=name if test else None,
        eval_results=_eval_results(task, test.arms) if test else None,
    )


def _eval_results(task: RecordedTask, arms: Mapping[str, ArmSummary]) -> list[EvalResult]:
    """One accuracy per arm, in per cent, the optimised prompt's first: it is the one that is shown."""
    return [
        EvalResult(
            task_type="text-classification" if task.kind == "choice" else "text-generation",
            task_name=task.name,
            dataset_type=task.hub.path or task.name,
            dataset_name=task.name,
            dataset_config=task.hub.name,
            dataset_split="test",
            metric_type="accuracy",
            metric_value=round(100 * arms[name].accuracy, 2),
            metric_name=f"accuracy of {ARMS[name]}, in %",
            metric_args={"arm": name, "ci95": [round(100 * limit, 2) for limit in arms[name].ci95]},
        )
        for name in reversed(ARMS)
        if name in arms
    ]


def _body(metadata: ArtifactMetadata, name: str) -> str:
    quoted = "\n>\n".join("> " + text.replace("\n", "\n> ") for text in as_texts(metadata.seed.text))
    tokens = sum(map(len, metadata.seed.token_ids))
    parts = [
        f"# {name}",
        f"A soft prompt of {tokens} tokens for {_called(metadata.model)}, optimised with embedgrad for the task "
        f"`{metadata.task}`. It is used in place of the text it was started from:",
        quoted,
        _results(metadata.metrics, metadata.task),
        "## Use\n\n"
        "```python\nimport embedgrad_cli\n\n"
        'prompt = embedgrad_cli.load("prompt.safetensors")\n'
        "inputs = prompt.apply(model, tokenizer, messages)\n"
        "output = model.generate(**inputs, **prompt.greedy(model, tokenizer), max_new_tokens=64)\n```\n\n"
        "`embedgrad export` writes forms that need no embedgrad, `embedgrad inspect prompt.safetensors --verify MODEL` "
        "tells whether a model is the one the prompt was made for, and `embedgrad evaluate "
        "artifact=prompt.safetensors` repeats the test.",
        _training(metadata.overrides),
        f"## Limits\n\nThe vectors work in this model alone. They were selected on one task; "
        f"{_elsewhere(metadata.metrics.elsewhere)} Their nearest tokens are not meanings: a prompt close to a text may "
        "do something else than the text.",
        _provenance(metadata),
    ]
    return "\n\n".join(parts) + "\n"


def _results(metrics: PromptMetrics, task: str) -> str:
    test = metrics.test
    if test is None:
        return "## Results\n\nNot tested: the run was stopped before its test."
    rows = [
        f"| {words} | {arm.accuracy:.1%} | {arm.ci95[0]:.1%} to {arm.ci95[1]:.1%} | {arm.correct} |"
        for words, arm in ((words, test.arms.get(name)) for name, words in ARMS.items())
        if arm
    ]
    table = "\n".join(["| prompt | accuracy | 95 % interval | correct |", "| --- | --- | --- | --- |", *rows])
    said = ""
    if test.comparison and test.num_examples:
        sentence = verdict(test.comparison, test.num_examples)
        said = f"\n\n{sentence[0].upper()}{sentence[1:]}."
        wins, losses = test.comparison.wins, test.comparison.losses
        said += f" It is right where the text is wrong {wins} times, and wrong where the text is right {losses} times."
    for arm, text in (test.added_system_turns or {}).items():
        said += f"\n\nThe model's chat template adds a system turn of its own to {ARMS.get(arm, arm)}: {text!r}"
    return (
        f"## Results\n\nThe test split of `{task}`, which neither trained nor selected the prompt; intervals by Wilson "
        f"and Newcombe, the paired test is McNemar's exact one.\n\n{table}{said}"
    )


def _elsewhere(found: Elsewhere | None) -> str:
    if found is None:
        return "what they do elsewhere was not measured."
    return (
        f"on {found.num_requests} everyday requests outside of it the model's predictions are {found.kl:.3f} nats per "
        f"token from those under the seed text (KL divergence; {found.first_token_kl:.3f} where replies begin), with "
        f"the same likeliest token at {found.same_token:.1%} of places."
    )


def _training(overrides: Sequence[str] | None) -> str:
    if overrides is None:  # no command line made the prompt
        return "## Training\n\nAll settings are in `config.yaml`."
    command = shlex.join(["embedgrad", "optimize", *overrides])
    return f"## Training\n\n```bash\n{command}\n```\n\nAll settings are in `config.yaml`."


def _provenance(metadata: ArtifactMetadata) -> str:
    prints = metadata.model.fingerprint
    libraries = ", ".join(f"{name} {version}" for name, version in metadata.libraries.items())
    return (
        f"Made with {libraries}. Fingerprint of the model: config `{prints.config[:16]}`, tokenizer "
        f"`{prints.tokenizer[:16]}`; of the splits: `{metadata.split_hash[:16]}`."
    )


def _called(model: ModelRecord) -> str:
    return _place(model) + (f", its weights quantised as {model.quantization.name}" if model.quantization else "")


def _place(model: ModelRecord) -> str:
    revision = f" at revision `{model.revision}`" if model.revision else ""
    if hub_id(model.path):
        return f"`{model.path}`{revision}"
    if model.path.startswith(assets.PREFIX):
        return "the model that is embedded in embedgrad"
    if model.gguf:
        sha256, kind = model.gguf.sha256, model.gguf.quantization
        return f"a model in a GGUF file ({kind}, sha256 `{sha256}`), `{Path(model.path).name}`"
    return f"a local model, `{Path(model.path).name}`"


def hub_id(path: str) -> str | None:
    """A model's name on the hub; None for a folder or file of this machine and for an embedded model."""
    is_place = path.startswith((".", "/", "~", assets.PREFIX)) or path.lower().endswith(SUFFIX)
    return None if is_place or path.count("/") > 1 or Path(path).is_dir() else path
