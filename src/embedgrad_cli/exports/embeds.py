"""`format=embeds`: the prompt's vectors and the conversation they stand in, for servers that take embeddings."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save

from embedgrad_cli.core.artifact import Artifact
from embedgrad_cli.run_directory import write_atomically, write_json
from embedgrad_cli.schema import ExportConfig


def write(artifact: Artifact, config: ExportConfig, folder: Path) -> str:
    """Write `prompt_embeds.safetensors` and `prompt_embeds.json` into the folder."""
    metadata, prompt = artifact.metadata, artifact.prompt
    vectors = prompt.split(prompt.vectors.detach())
    tensors = {f"prompt_embeds.{i}": v.contiguous() for i, v in enumerate(vectors)}
    write_atomically(folder / "prompt_embeds.safetensors", save(tensors))
    write_json(
        folder / "prompt_embeds.json",
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
    return f"prompt_embeds.safetensors and prompt_embeds.json: {len(tensors)} slot(s)"
