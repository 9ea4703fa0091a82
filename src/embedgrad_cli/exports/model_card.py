"""The model card of an artifact on the hub: a README.md that begins with YAML metadata."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from embedgrad_cli import assets
from embedgrad_cli.config.fields import as_texts
from embedgrad_cli.evaluation.significance import verdict
from embedgrad_cli.storage.run_records import Comparison

LICENCE = "# license: yours to choose, and the base model's may bind you; embedgrad sets none\n"
ARMS = {
    "none": "the template without any prompt",
    "seed": "the seed text",
    "optimized": "the optimised prompt",
}


def model_card(metadata: Mapping[str, Any], name: str) -> str:
    """The text of README.md.

    Args:
        metadata: of the artifact.
        name: of the repository or folder.
    """
    header = yaml.safe_dump(_header(metadata, name), sort_keys=False, allow_unicode=True)
    return f"---\n{header}{LICENCE}---\n\n{_body(metadata, name)}"


def _header(metadata: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The hub's metadata. A model or data set of this machine has no name there, so it is left out."""
    base, task = hub_id(metadata["model"]["path"]), metadata["config"]["task"]
    data = task["hub"]["path"]
    header: dict[str, Any] = {"library_name": "embedgrad", "pipeline_tag": "text-generation"}
    header["tags"] = ["embedgrad", "soft-prompt", "prompt-tuning"]
    header |= {"base_model": base} if base else {}
    header |= {"datasets": [data]} if data else {}
    test = metadata["metrics"].get("test")
    if test:
        kind = "text-classification" if task["kind"] == "choice" else "text-generation"
        dataset = {"type": data or task["name"], "name": task["name"], "split": "test"}
        dataset |= {"config": task["hub"]["name"]} if task["hub"]["name"] else {}
        results = {"task": {"type": kind, "name": task["name"]}, "dataset": dataset, "metrics": _metrics(test)}
        header["model-index"] = [{"name": name, "results": [results]}]
    return header


def _metrics(test: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One accuracy per arm, in per cent, the optimised prompt's first: it is the one that is shown."""
    names = [name for name in reversed(ARMS) if name in test["arms"]]
    return [
        {
            "type": "accuracy",
            "value": round(100 * test["arms"][name]["accuracy"], 2),
            "name": f"accuracy of {ARMS[name]}, in %",
            "args": {"arm": name, "ci95": [round(100 * limit, 2) for limit in test["arms"][name]["ci95"]]},
        }
        for name in names
    ]


def _body(metadata: Mapping[str, Any], name: str) -> str:
    model = metadata["model"]
    texts = metadata["seed"]["text"]
    quoted = "\n>\n".join("> " + text.replace("\n", "\n> ") for text in as_texts(texts))
    tokens = sum(map(len, metadata["seed"]["token_ids"]))
    parts = [
        f"# {name}",
        f"A soft prompt of {tokens} tokens for {_called(model)}, optimised with embedgrad for the task "
        f"`{metadata['task']}`. It is used in place of the text it was started from:",
        quoted,
        _results(metadata["metrics"], metadata["task"]),
        "## Use\n\n"
        "```python\nimport embedgrad_cli\n\n"
        'prompt = embedgrad_cli.load("prompt.safetensors")\n'
        "inputs = prompt.apply(model, tokenizer, messages)  # for model.generate(**inputs)\n```\n\n"
        "`embedgrad export` writes forms that need no embedgrad, `embedgrad inspect prompt.safetensors --verify MODEL` "
        "tells whether a model is the one the prompt was made for, and `embedgrad evaluate "
        "artifact=prompt.safetensors` repeats the test.",
        _training(metadata.get("overrides")),
        "## Limits\n\nThe vectors work in this model alone. They were selected on one task; what they do elsewhere was "
        "not measured. Their nearest tokens are not meanings: a prompt close to a text may do something else than the "
        "text.",
        _provenance(metadata),
    ]
    return "\n\n".join(parts) + "\n"


def _results(metrics: Mapping[str, Any], task: str) -> str:
    test = metrics.get("test")
    if not test:
        return "## Results\n\nNot tested: the run was stopped before its test."
    rows = [
        f"| {words} | {arm['accuracy']:.1%} | {arm['ci95'][0]:.1%} to {arm['ci95'][1]:.1%} | {arm['correct']} |"
        for words, arm in ((words, test["arms"].get(name)) for name, words in ARMS.items())
        if arm
    ]
    table = "\n".join(["| prompt | accuracy | 95 % interval | correct |", "| --- | --- | --- | --- |", *rows])
    n = test.get("num_examples")
    sentence = verdict(Comparison.from_json(test["comparison"], "the comparison"), n) if n else ""
    said = f"\n\n{sentence[0].upper()}{sentence[1:]}." if n else ""
    return (
        f"## Results\n\nThe test split of `{task}`, which neither trained nor selected the prompt; intervals by Wilson "
        f"and Newcombe, the paired test is McNemar's exact one.\n\n{table}{said}"
    )


def _training(overrides: Sequence[str] | None) -> str:
    if overrides is None:  # no command line made the prompt
        return "## Training\n\nAll settings are in `config.yaml`."
    command = shlex.join(["embedgrad", "optimize", *overrides])
    return f"## Training\n\n```bash\n{command}\n```\n\nAll settings are in `config.yaml`."


def _provenance(metadata: Mapping[str, Any]) -> str:
    prints = metadata["model"]["fingerprint"]
    libraries = ", ".join(f"{name} {version}" for name, version in metadata["libraries"].items())
    return (
        f"Made with {libraries}. Fingerprint of the model: config `{prints['config'][:16]}`, tokenizer "
        f"`{prints['tokenizer'][:16]}`; of the splits: `{metadata['split_hash'][:16]}`."
    )


def _called(model: Mapping[str, Any]) -> str:
    revision = f" at revision `{model['revision']}`" if model["revision"] else ""
    if hub_id(model["path"]):
        return f"`{model['path']}`{revision}"
    if model["path"].startswith(assets.PREFIX):
        return "the model that is embedded in embedgrad"
    return f"a local model, `{Path(model['path']).name}`"


def hub_id(path: str) -> str | None:
    """A model's name on the hub; None for a folder of this machine and for an embedded model."""
    is_local = path.startswith((".", "/", "~", assets.PREFIX)) or path.count("/") > 1 or Path(path).is_dir()
    return None if is_local else path
