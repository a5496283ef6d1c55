"""Sources that remember rows, collections and replay buffers: what does not fit them in a recipe."""

from __future__ import annotations

import dataclasses
from typing import Any

from limbeck.config.reading import Draft
from limbeck.config.sections import ModelsSection, SamplingSection, TrainSection, ValidateSection


def unfit_collection(
    method: Any,
    models: ModelsSection,
    sampling: SamplingSection,
    train: TrainSection,
    validate: ValidateSection,
    draft: Draft,
) -> list[tuple[str, str]]:
    """Rows that several steps learn from, and terms that need to know how a row was drawn."""
    from limbeck.losses import ExperiencedTerm
    from limbeck.sequences import Collecting

    base, source, term = draft.values["method"]["base"], method.sequences, method.objective().terms.get("token")
    if not isinstance(source, Collecting):
        nested = [
            part.name for part in dataclasses.fields(source) if isinstance(getattr(source, part.name), Collecting)
        ]
        if nested:
            key = f"method.sequences.{nested[0]}"
            return [(key, f"{key} gathers a collection, which takes its own steps; make it method.sequences itself")]
        if isinstance(term, ExperiencedTerm):
            message = "method.token learns from how its rows were drawn, which method.sequences does not keep"
            return [("method.token", f"{message}; set method.sequences to rollouts, or choose another term")]
        return []
    if method.revision is not None:
        message = "method.revision corrects rows that were just drawn, but a collection is learned from later too"
        return [("method.revision", f"{message}; set it to null, or method.sequences to student or a mixture")]
    if method.weights.supervised:
        message = (
            f"method.weights.supervised is {method.weights.supervised:g}, but {base} reads rows of the corpus at the"
        )
        return [("method.weights.supervised", f"{message} first step of a collection only; set it to 0")]
    rows = getattr(source, "rows", train.batch_rows)
    if rows % train.batch_rows:
        message = f"train.batch_rows is {train.batch_rows}, which does not divide the {rows} of method.sequences.rows"
        return [("train.batch_rows", f"{message}; every row of a collection is learned from equally often")]
    if not isinstance(term, ExperiencedTerm):
        return []
    cut = {"top_p": sampling.top_p < 1, "top_k": sampling.top_k > 0, "temperature": sampling.temperature == 0}
    for key in (key for key, is_cut in cut.items() if is_cut):
        message = (
            f"sampling.{key} is {getattr(sampling, key)}, which never draws some of the student's tokens: no weight"
        )
        return [(f"sampling.{key}", f"{message} makes up for that; allowed: temperature above 0, top_p 1, top_k 0")]
    message = f"but {base} weighs a token by how likely the student was to draw it, which dropout would change"
    if models.dropout:
        return [("models.dropout", f"models.dropout is true, {message}; set it to false")]
    if models.lora is not None and models.lora.dropout:
        return [("models.lora.dropout", f"models.lora.dropout is {models.lora.dropout:g}, {message}; set it to 0")]
    if not getattr(term, "single_step", True) and validate.metric == "loss" and validate.every is not None:
        message = "validate.metric is loss, but without method.token.single_step there is none on references"
        return [("validate.metric", f"{message}; allowed: rouge-l")]
    return []


def unfit_replay(train: TrainSection, validate: ValidateSection, method: Any, draft: Draft) -> list[tuple[str, str]]:
    """A replay whose buffer or schedule does not fit the run."""
    from limbeck.sequences import Mixture, Replay

    source, place = method.sequences, "method.sequences"
    if isinstance(source, Mixture):
        inside = [name for name in ("first", "second") if isinstance(getattr(source, name), Replay | Mixture)]
        found = [f"{place}.{name}" for name in inside]
        message = "tosses the coin of the step itself, which the mixture around it has tossed already"
        way_out = "Take kind: replay with a schedule in the place of the mixture"
        return [(key, f"{key} {message}.\n  {way_out}") for key in found]
    if not isinstance(source, Replay):
        return []
    if source.capacity < train.batch_rows:
        message = f"{place}.capacity is {source.capacity}, less than the {train.batch_rows} rows of train.batch_rows"
        return [(f"{place}.capacity", f"{message}: no step could be replayed; raise it")]
    if source.schedule.observes(0, steps=1) and validate.every is None:
        message = f"{place}.schedule follows the validation loss, but validate.every is null: no row is held out"
        return [
            (f"{place}.schedule", f"{message}.\n  Set validate.every, or take a schedule of kind constant or linear")
        ]
    return []
