"""Models that are larger than a device: the layers on several devices, or every layer divided between processes.

`launch.device_map=auto`: accelerate lays whole layers on one GPU after the other, and moves what travels between them.
`launch.tensor_parallel=N`: transformers divides the matrices of every layer between N processes, all of which do the
same work, and adds up what they give. Embedding table and output layer stay whole in each: what reads them directly
(losses, scores of choices, nearest tokens) reads all of them.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch

from embedgrad_cli.config.schema import LaunchConfig, ModelConfig
from embedgrad_cli.errors import ModelError
from embedgrad_cli.parallel import environment
from embedgrad_cli.storage.quantization import QuantizationRecord

# How transformers' plans treat a module. Tried are these; beside them there are some for experts and packed matrices.
WHOLE = "replicated_with_grad_allreduce"  # of frozen weights there is no gradient
TRIED = {"colwise", "rowwise", WHOLE}


def loading_over_devices(
    config: ModelConfig, launch: LaunchConfig, shape: Any, quantization: QuantizationRecord | None
) -> dict[str, Any]:
    """What `from_pretrained` is told of a model that one device does not hold; nothing for another.

    Args: shape: the model's own config.

    Raises:
        ModelError: this model cannot be laid out like that, or not together with its quantisation.
    """
    key = key_of(launch)
    if key is None:
        return {}
    if quantization is not None:
        raise ModelError(
            f"{key}: {config.path} is loaded quantised ({quantization.name}), which was not tried together. Leave one "
            "of them out."
        )
    if launch.tensor_parallel is not None:
        return _divided(config, launch.tensor_parallel, shape)
    if environment.in_group():
        raise ModelError(
            f"{key} is for one process, and there are {environment.count()}. Start it without torchrun; or use "
            "launch.tensor_parallel=N."
        )
    if find_spec("accelerate") is None:
        raise ModelError(
            f"{key} needs the package accelerate, which is not installed: pip install 'embedgrad[sharded]'."
        )
    return {"device_map": launch.device_map}


def key_of(launch: LaunchConfig) -> str | None:
    """The setting that lays the model over several devices, as users write it."""
    if launch.tensor_parallel is not None:
        return f"launch.tensor_parallel={launch.tensor_parallel}"
    return None if launch.device_map is None else "launch.device_map=auto"


def check_laid_out(network: Any, config: ModelConfig, device: torch.device, launch: LaunchConfig) -> None:
    """See that the weights are where they compute.

    Raises:
        ModelError: some lie in main memory or on the disk and are fetched each time; or on another kind of device than
            the one that was asked for.
    """
    if (key := key_of(launch)) is None:
        return
    places = set(map(str, getattr(network, "hf_device_map", {}).values()))
    on_gpus = any(place not in ("cpu", "disk") and not place.startswith("cpu:") for place in places)
    if "disk" in places or (on_gpus and "cpu" in places):
        raise ModelError(
            f"{key}: the devices do not hold {config.path}, and part of it would be fetched from main memory or disk "
            "for every pass. The way back needs all weights again, so that is refused. model.dtype=bfloat16 takes half "
            "of float32; or use more GPUs, or model.quantization=nf4 on one."
        )
    here = network.get_input_embeddings().weight.device.type
    if launch.tensor_parallel is not None and here != device.type:
        raise ModelError(
            f"{key}: transformers divides models on {here} here, and device={device} was asked for. Leave device out."
        )


def lies_on_several(network: Any) -> bool:
    """Whether its layers are on several devices, so that its parts must not be used but through its modules."""
    return len(set(map(str, getattr(network, "hf_device_map", {}).values()))) > 1


def _divided(config: ModelConfig, processes: int, shape: Any) -> dict[str, Any]:
    from transformers import AutoModelForCausalLM
    from transformers.distributed import DistributedConfig

    with torch.device("meta"):
        outline = AutoModelForCausalLM.from_config(shape, trust_remote_code=config.trust_remote_code)
    plan = dict(getattr(outline, "tp_plan", None) or {})
    if reason := _why_not_divided(outline, plan, processes):
        raise ModelError(
            f"launch.tensor_parallel={processes}: {config.path} (a {shape.model_type} model) cannot be divided: "
            f"{reason}. Leave it out, or use launch.device_map=auto."
        )
    names = {id(module): name for name, module in outline.named_modules()}
    plan |= {names[id(part)]: WHOLE for part in (outline.get_input_embeddings(), outline.get_output_embeddings())}
    return {"distributed_config": DistributedConfig(tp_size=processes, tp_plan=plan)}


def _why_not_divided(outline: Any, plan: dict[str, str], processes: int) -> str | None:
    whole = {id(outline.get_input_embeddings()), id(outline.get_output_embeddings())}
    ends = {name for name, module in outline.named_modules() if id(module) in whole}
    styles = {style for name, style in plan.items() if name not in ends}
    if not styles:
        return "transformers has no plan for its layers"
    if styles - TRIED:
        return f"its plan has parts that were not tried ({', '.join(sorted(styles - TRIED))})"
    config = outline.config.get_text_config()
    heads = {config.num_attention_heads, getattr(config, "num_key_value_heads", None) or config.num_attention_heads}
    if any(number % processes for number in heads):
        return (
            f"its attention has {' and '.join(map(str, sorted(heads)))} heads, which are not a multiple of {processes}"
        )
    return None
