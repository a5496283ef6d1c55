"""What LoRA may be put on: not on the head, which is read apart from the model."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedModel

from limbeck.errors import ConfigError


def check_targets(model: PreTrainedModel, targets: Sequence[str] | None) -> None:
    """Raise `ConfigError` if LoRA was put on the head, or on the embedding where they share their weights.

    Chunks of hidden states meet the head's own weight, so that an update beside it would neither be used nor trained;
    merged into the student afterwards, one of the embedding would change the head too.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None:
        return
    is_shared = head.weight is embedding.weight
    for module in (head, *([embedding] if is_shared else [])):
        if isinstance(module, BaseTunerLayer):
            name = next(name for name, each in model.named_modules() if each is module)
            what = "the head" if module is head else "the embedding, which shares its weights with the head"
            raise ConfigError(
                f"models.lora.targets is {None if targets is None else list(targets)}, and {name} is {what}:"
                " LoRA there would not be trained.\n"
                "  Leave it out; null takes every linear layer but the head"
            )
