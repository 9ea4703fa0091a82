"""By which keys vLLM's prefix cache knows chats with embeddings as content parts. Run by the Python that has vLLM.

Two chats have the same tokens around parts of the same length, as one server of `format=embeds` is asked.
A prefix is taken from the cache if its key is there. Keys are made by vLLM's own functions, from what its chat renderer
makes of a conversation; no network is loaded. Ends with 1 if other vectors do not make other keys.

It also shows vllm#56655: which rows are embeddings is not part of the key, so a vector of zeros counts as the token 0.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
import vllm
from vllm import SamplingParams
from vllm.renderers.hf import _build_mixed_prompt_embeds
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.request import Request

BLOCK, WIDTH = 16, 8  # tokens of a block of the cache; numbers of a vector
BEFORE, AFTER = [5, 6, 7], list(range(10, 40))
PLACEHOLDER = 99


def keys(ids: Sequence[int], part: torch.Tensor | None) -> list[bytes]:
    """The keys of a conversation's whole blocks; `part` are the vectors of its placeholders, `[tokens, WIDTH]`."""
    embeds, is_token = None, None
    if part is not None:
        begin = list(ids).index(PLACEHOLDER) if PLACEHOLDER in ids else 0
        embeds, is_token = _build_mixed_prompt_embeds(list(ids), [part], [(begin, len(part))])
    request = Request(
        request_id="0",
        prompt_token_ids=list(ids),
        prompt_embeds=embeds,
        prompt_is_token_ids=is_token,
        sampling_params=SamplingParams(max_tokens=1),
        pooling_params=None,
        block_hasher=get_request_block_hasher(BLOCK, sha256),
    )
    return list(request.block_hashes)


def chat(part: torch.Tensor) -> list[int]:
    return [*BEFORE, *[PLACEHOLDER] * len(part), *AFTER]


def main() -> int:
    init_none_hash(sha256)
    one, other = torch.randn(2, 6, WIDTH, generator=torch.Generator().manual_seed(0))
    first, again, second = keys(chat(one), one), keys(chat(one), one), keys(chat(other), other)
    close = one.clone()
    close[0, 0] += 1e-6  # in the first block, and so in all keys after it
    shared = sum(key in first for key in second + keys(chat(close), close))
    print(f"vLLM {vllm.__version__}: {len(first)} keys; of two chats with other vectors {shared} are among them")
    zeros = torch.zeros(6, WIDTH)
    tokens, elsewhere = [*BEFORE, *[0] * len(zeros), *AFTER], torch.zeros(1, WIDTH)
    with_token = keys([*tokens, *AFTER, PLACEHOLDER], elsewhere)
    print("vectors of zeros count as tokens with the id 0:", keys(chat(zeros), zeros)[0] == with_token[0])
    return 0 if first == again and first and not shared else 1


if __name__ == "__main__":
    sys.exit(main())
