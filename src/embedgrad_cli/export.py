"""`embedgrad export`: a saved prompt in a form that other programs take."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save

from embedgrad_cli.core.artifact import load_artifact
from embedgrad_cli.errors import UserError
from embedgrad_cli.run_directory import write_atomically, write_json
from embedgrad_cli.schema import ExportConfig


def run(config: ExportConfig) -> None:
    """Write the export into `output_dir`.

    Raises:
        ArtifactError: the artifact cannot be read.
        UserError: the format is unknown, or the folder is not empty.
    """
    if config.format != "embeds":
        raise UserError(
            f"format={config.format} does not exist yet. This version writes format=embeds (the prompt's vectors and "
            "the conversation they stand in, for servers that take embeddings); peft, model and text are planned."
        )
    artifact = load_artifact(Path(config.artifact))
    output_dir = Path(config.output_dir)
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise UserError(
            f"output_dir={output_dir} exists and is not an empty folder. Give another; nothing was changed."
        )
    output_dir.mkdir(parents=True, exist_ok=True)

    metadata, prompt = artifact.metadata, artifact.prompt
    vectors = prompt.split(prompt.vectors.detach())
    tensors = {f"prompt_embeds.{i}": v.contiguous() for i, v in enumerate(vectors)}
    write_atomically(output_dir / "prompt_embeds.safetensors", save(tensors))
    write_json(
        output_dir / "prompt_embeds.json",
        {
            "format": "embeds",
            "model": metadata["model"],
            "template": metadata["template"],
            "seed_text": metadata["seed"]["text"],
            "slots": [
                {"tensor": name, "shape": list(tensor.shape), "seed_token_ids": ids}
                for (name, tensor), ids in zip(tensors.items(), metadata["seed"]["token_ids"], strict=True)
            ],
        },
    )
    print(f"wrote {output_dir}/prompt_embeds.safetensors and prompt_embeds.json: {len(tensors)} slot(s)")
