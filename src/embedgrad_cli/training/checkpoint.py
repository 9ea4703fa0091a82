"""All that a stopped run needs to go on as if it had not been stopped: tensors and JSON in one `.safetensors` file."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.errors import ArtifactError
from embedgrad_cli.storage.files import write_atomically
from embedgrad_cli.storage.record import Record
from embedgrad_cli.storage.results_record import Validation
from embedgrad_cli.storage.run_digests import RunDigests

STATE, DIGESTS = "embedgrad_checkpoint", "digests"  # the metadata key, and a key in the JSON under it


@dataclass
class TrainingState:
    """Where a run stands: steps done, and the best prompt so far by validation accuracy, then loss.

    `average` is what averaged vectors are made of (`averaging.Averaging`), None where nothing is averaged.
    `validation_due` says that the validation after `step` has not been made; `accuracy` is the last one's. `loss_scale`
    is that of `core.passes.forward`, on which the bits of a gradient in float16 depend; None: the one to begin with.
    The order of examples follows from the seed and the step, so no random state is kept.
    """

    best_vectors: Tensor
    average: Tensor | None = None
    step: int = 0
    best_accuracy: float | None = None
    best_loss: float | None = None
    best_step: int = 0
    validations_since_best: int = 0
    validation_due: bool = False
    accuracy: float | None = None
    loss_scale: float | None = None

    @property
    def validation(self) -> Validation:
        """The validation that chose the best prompt so far; there has been one."""
        assert self.best_accuracy is not None
        assert self.best_loss is not None
        return Validation(accuracy=self.best_accuracy, loss=self.best_loss, step=self.best_step)

    def update_best(self, accuracy: float, loss: float, vectors: Tensor) -> bool:
        """Take these vectors if they are better: more accurate, or as accurate with a smaller loss (NaN is none)."""
        self.accuracy = accuracy
        loss = math.inf if math.isnan(loss) else loss
        best = None if self.best_accuracy is None or self.best_loss is None else (-self.best_accuracy, self.best_loss)
        if best is not None and (-accuracy, loss) >= best:
            self.validations_since_best += 1
            return False
        self.best_accuracy, self.best_loss, self.best_step = accuracy, loss, self.step
        self.best_vectors = vectors.detach().clone()
        self.validations_since_best = 0
        return True


@dataclass(frozen=True, kw_only=True)
class Standing(Record):
    """What of a `TrainingState` stands in a checkpoint as JSON; see there."""

    step: int
    best_accuracy: float | None = None
    best_loss: float | None = None
    best_step: int = 0
    validations_since_best: int = 0
    validation_due: bool = False
    accuracy: float | None = None
    loss_scale: float | None = None


def save_checkpoint(
    path: Path,
    state: TrainingState,
    prompt: SoftPrompt,
    optimizer: torch.optim.Optimizer,
    digests: RunDigests | None = None,
) -> None:
    """Write state, prompt, the optimiser's moments and what the run works on, whole or not at all."""
    tensors = {"vectors": prompt.vectors.detach(), "best_vectors": state.best_vectors}
    tensors |= {} if state.average is None else {"average": state.average}
    for key, value in optimizer.state_dict()["state"].get(0, {}).items():
        if value is not None:
            tensors[f"optimizer.{key}"] = torch.as_tensor(value)
    content = {key: value for key, value in vars(state).items() if key not in ("best_vectors", "average")}
    content[DIGESTS] = None if digests is None else digests.to_json()
    # One metadata key: safetensors writes several in an order of chance, and equal runs are equal in every byte.
    write_atomically(path, save({k: t.cpu().contiguous() for k, t in tensors.items()}, {STATE: json.dumps(content)}))


def read_digests(path: Path) -> RunDigests | None:
    """What the run of a checkpoint works on; None: an earlier version wrote it.

    Raises:
        ArtifactError: the file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            digests = json.loads(file.metadata()[STATE]).get(DIGESTS)
    except Exception as error:
        raise _unusable(path, error) from error
    return None if digests is None else RunDigests.from_json(digests, str(path))


def load_checkpoint(path: Path, prompt: SoftPrompt, optimizer: torch.optim.Optimizer) -> TrainingState:
    """Put the prompt and the optimiser where the checkpoint left them.

    Raises:
        ArtifactError: the file is damaged or belongs to another prompt.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
            numbers = json.loads(file.metadata()[STATE])
            numbers.pop(DIGESTS, None)
        _check(tensors, prompt)
    except Exception as error:
        raise _unusable(path, error) from error
    standing = Standing.from_json(numbers, f"the checkpoint {path}", ArtifactError)
    with torch.no_grad():
        prompt.vectors.copy_(tensors["vectors"])
    moments = {k.removeprefix("optimizer."): t for k, t in tensors.items() if k.startswith("optimizer.")}
    if moments:
        optimizer.load_state_dict({**optimizer.state_dict(), "state": {0: moments}})
    device = prompt.vectors.device
    average = tensors["average"].to(device) if "average" in tensors else None
    return TrainingState(best_vectors=tensors["best_vectors"].to(device), average=average, **vars(standing))


def _check(tensors: dict[str, Tensor], prompt: SoftPrompt) -> None:
    """Raise ValueError where a tensor is not of the prompt's shape; numbers of the optimiser have none."""
    shape = prompt.vectors.shape
    for key in ("vectors", "best_vectors", *tensors):
        if tensors[key].shape != shape and not (key.startswith("optimizer.") and tensors[key].ndim == 0):
            raise ValueError(f"{key} is {list(tensors[key].shape)}, and the prompt {list(shape)}")
        if tensors[key].is_complex() or tensors[key].dtype == torch.bool:
            raise ValueError(f"{key} holds {tensors[key].dtype}, not numbers")


def _unusable(path: Path, error: Exception) -> ArtifactError:
    return ArtifactError(
        f"the checkpoint {path} cannot be used: {error}. Delete it to start this run from the beginning, or give "
        "another output_dir."
    )
