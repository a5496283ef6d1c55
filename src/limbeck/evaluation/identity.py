"""What tells one evaluation from another: short hashes for the header of its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence

from torch import nn

from limbeck.records import Example

_SAMPLED = 64


def fingerprint(examples: Sequence[Example]) -> str:
    """A hash of the examples' ids, messages and references, in order."""
    body = json.dumps([[example.id, example.content_hash()] for example in examples])
    return hashlib.blake2b(body.encode(), digest_size=8).hexdigest()


def ids_fingerprint(ids: Iterable[int]) -> str:
    """A hash of a set of token ids."""
    return hashlib.blake2b(json.dumps(sorted(ids)).encode(), digest_size=8).hexdigest()


def prompts_fingerprint(prompts: Iterable[Sequence[int]]) -> str:
    """A hash of prompts as a model reads them: template, system message and tokenizer are all in their tokens."""
    return hashlib.blake2b(json.dumps([list(prompt) for prompt in prompts]).encode(), digest_size=8).hexdigest()


def weights_fingerprint(model: nn.Module, *, frozen_only: bool = False) -> str:
    """A hash of some sixty numbers of every parameter: what tells a student from itself trained further.

    `frozen_only` leaves out what is trained.
    """
    digest = hashlib.blake2b(digest_size=8)
    for name, parameter in model.named_parameters():
        if frozen_only and parameter.requires_grad:
            continue
        numbers = parameter.detach().flatten()
        sampled = numbers[:: max(1, len(numbers) // _SAMPLED)].float().cpu().numpy()
        digest.update(name.encode() + sampled.tobytes())
    return digest.hexdigest()
