"""Settings that contradict each other, or that nothing would read: errors, because a run would not do what they say."""

from __future__ import annotations

import dataclasses
from typing import Any

from limbeck.config.caching import Asked, unread_cache
from limbeck.config.placing import unfit_placing, unread_placing
from limbeck.config.plain_text import unread_text
from limbeck.config.reading import Draft
from limbeck.config.remembering import unfit_collection, unfit_replay
from limbeck.config.sections import (
    CacheSection,
    DataSection,
    ModelsSection,
    SamplingSection,
    TrackSection,
    TrainSection,
    ValidateSection,
    WatchSection,
)
from limbeck.config.watching import unread_thresholds
from limbeck.errors import ConfigError


def check_uses(
    *,
    models: ModelsSection,
    data: DataSection,
    sampling: SamplingSection,
    train: TrainSection,
    cache: CacheSection,
    validate: ValidateSection,
    watch: WatchSection,
    track: TrackSection,
    method: Any,
    draft: Draft,
) -> None:
    """Raise `ConfigError` for the first contradiction or unused setting; a key at its default counts as not set."""
    found = [
        *_parts(method, draft),
        *unread_text(data, method=method, base=draft.values["method"]["base"]),
        *unfit_collection(method, models, sampling, train, validate, draft),
        *unfit_replay(train, validate, method, draft),
        *_teacher(models, watch, method, draft, has_teacher=bool(models.teacher) or cache.kind == "offline"),
        *unread_cache(
            cache,
            Asked(method, matches_teacher(method), _leaves(method.sequences), draft.values["method"]["base"]),
            models=models,
            train=train,
            validate=validate,
        ),
        *unfit_placing(models, train, reads_teacher=matches_teacher(method), base=draft.values["method"]["base"]),
        *_lengths(models, data, train),
        *_drawing(data, sampling, validate, method, draft),
        *_schedule(train, validate),
        *_validation(data, validate),
        *_tracking(track),
        *unread_thresholds(
            watch,
            method=method,
            validate=validate,
            writer=_other_writer(method.sequences),
            base=draft.values["method"]["base"],
        ),
    ]
    if found:
        key, message = found[0]
        raise ConfigError(f"{message}\n  {draft.where(tuple(key.split('.')))}")


def needs_teacher(method: Any) -> bool:
    """Whether anything of the method asks the teacher: a term that has a weight, its revision, or its source."""
    return matches_teacher(method) or any(_is_written(part) for part in _leaves(method.sequences))


def matches_teacher(method: Any) -> bool:
    """Whether a term of the method that has a weight, its revision or its source reads the teacher's distributions.

    The teacher of a method that only learns from its text may have another vocabulary.
    """
    objective = method.objective()
    is_matched = bool(objective.pair_terms) or any(term.needs_teacher for term in objective.terms.values())
    is_asked = any(getattr(part, "needs_teacher", False) for part in _leaves(method.sequences))
    return is_matched or method.revision is not None or is_asked


def only_fixed(source: Any) -> bool:
    """Whether every row comes with the response that the corpus has."""
    from limbeck.sequences import Fixed

    return all(isinstance(part, Fixed) for part in _leaves(source))


def student_draws(source: Any) -> bool:
    """Whether some rows come with responses that the student draws."""
    from limbeck.sequences import Fixed

    return any(not isinstance(part, Fixed) and not _is_written(part) for part in _leaves(source))


def _other_writer(source: Any) -> str | None:
    """Whose responses a run learns from where the student writes none of them alone; None where it does."""
    from limbeck.sequences import CollectedRollouts

    if only_fixed(source):
        return "the corpus's"
    if not student_draws(source):
        return "the teacher's"
    is_shared = isinstance(source, CollectedRollouts) and source.teacher_share > 0
    return "the teacher's and student's common" if is_shared else None


def _is_written(source: Any) -> bool:
    from limbeck.sequences import TeacherWritten

    return isinstance(source, TeacherWritten)


def _leaves(source: Any) -> list[Any]:
    """The sources that a source is made of; itself where there is none inside it."""
    from limbeck.sequences import Source, SourceToBuild

    parts = dataclasses.fields(source) if dataclasses.is_dataclass(source) else ()
    values = [getattr(source, part.name) for part in parts]
    inside = [value for value in values if isinstance(value, Source | SourceToBuild)]
    return [leaf for part in inside for leaf in _leaves(part)] or [source]


_Found = list[tuple[str, str]]
_UNREAD = "which nothing reads"


def _parts(method: Any, draft: Draft) -> _Found:
    """Parts of a method that do not go together."""
    base = draft.values["method"]["base"]
    if method.revision is not None and not student_draws(method.sequences):
        writer = "corpus" if only_fixed(method.sequences) else "teacher"
        message = (
            f"method.revision corrects what the student draws, but {base} learns from the {writer}'s responses only"
        )
        return [
            (
                "method.revision",
                f"{message}.\n  Set method.revision to null, or method.sequences to a source that draws",
            )
        ]
    if method.span is None and method.weights.span != 1.0:
        message = f"method.weights.span is {method.weights.span:g}, which nothing reads: {base} has no span term"
        return [("method.weights.span", f"{message}; delete it, or set method.span")]
    if method.span is not None and method.weights.span == 0.0:
        message = "method.span is set, but method.weights.span is 0, so that nothing reads it"
        return [("method.span", f"{message}; set method.span to null, or raise its weight")]
    terms = method.objective().terms
    if method.span is not None and getattr(terms.get("token"), "reads_other_row", False):
        message = "method.token.target is other-row, for which the teacher reads other rows than the student"
        return [("method.token.target", f"{message}: method.span would compare with them too; set it to null")]
    if "supervised" in terms and "token" not in terms and method.span is None and not only_fixed(method.sequences):
        message = f"method.weights.token is 0, so that no term of {base} learns from the responses of method.sequences"
        return [("method.weights.token", f"{message}; raise it, or set method.sequences to fixed")]
    return []


def _teacher(models: ModelsSection, watch: WatchSection, method: Any, draft: Draft, *, has_teacher: bool) -> _Found:
    base = draft.values["method"]["base"]
    if not method.objective().names:
        return [("method.weights", f"every weight of {base} is 0, so nothing would be learned; raise one of them")]
    if needs_teacher(method):
        if models.teacher and not matches_teacher(method) and watch.rows != WatchSection().rows:
            message = f"watch.rows is {watch.rows}, {_UNREAD}: {base} compares nothing with the teacher token by token"
            return [("watch.rows", f"{message}; delete it")]
        missing = f"models.teacher is missing; {base} matches a teacher. Name a model, or choose method.base: sft"
        return [] if has_teacher else [("models.teacher", missing)]
    if models.teacher:
        way_out = "delete it, or pass models.teacher=null"
        return [
            ("models.teacher", f"models.teacher is '{models.teacher}', {_UNREAD}: {base} has no teacher; {way_out}")
        ]
    found = unread_placing(models, "there is no teacher")
    if watch.rows != WatchSection().rows:
        found.append(("watch.rows", f"watch.rows is '{watch.rows}', {_UNREAD}: there is no teacher; delete it"))
    return found


def _lengths(models: ModelsSection, data: DataSection, train: TrainSection) -> _Found:
    found: _Found = []
    if data.max_prompt >= data.max_length:
        found.append(
            (
                "data.max_prompt",
                f"data.max_prompt is {data.max_prompt} and data.max_length {data.max_length}: a prompt of full length "
                "would leave no room for a response. Lower max_prompt or raise max_length",
            )
        )
    if isinstance(train.micro_rows, int) and train.micro_rows > train.batch_rows:
        message = f"train.micro_rows is {train.micro_rows}, more than the {train.batch_rows} of train.batch_rows"
        found.append(("train.micro_rows", f"{message}; allowed: auto, or 1 to {train.batch_rows}"))
    if models.chat_template_kwargs and data.template in ("paper", "plain"):
        message = f"models.chat_template_kwargs is set, but data.template is '{data.template}', which has no arguments"
        message += "; delete one"
        found.append(("models.chat_template_kwargs", message))
    return found


def _drawing(
    data: DataSection, sampling: SamplingSection, validate: ValidateSection, method: Any, draft: Draft
) -> _Found:
    base = draft.values["method"]["base"]
    if data.train_on == "all" and not only_fixed(method.sequences):
        message = f"data.train_on is 'all', but {base} draws its own last responses; allowed: last"
        return [("data.train_on", f"{message} (all goes with fixed responses only: sft, kd)")]
    is_drawn = student_draws(method.sequences) or (validate.metric == "rouge-l" and validate.every is not None)
    values, standard = dataclasses.asdict(sampling), dataclasses.asdict(SamplingSection())
    for key in ("temperature", "top_p", "top_k"):
        name = f"sampling.{key}"
        if values[key] != standard[key] and not is_drawn:
            message = (
                f"{name} is {values[key]}, which nothing reads: neither {base} nor the validation draws; delete it"
            )
            return [(name, message)]
        if values[key] != standard[key] and key != "temperature" and sampling.temperature == 0:
            return [(name, f"{name} is {values[key]}, which greedy decoding (temperature 0) never reads; delete it")]
    return []


def _schedule(train: TrainSection, validate: ValidateSection) -> _Found:
    if train.steps is not None and train.epochs != TrainSection().epochs:
        message = f"train.epochs is {train.epochs} and train.steps {train.steps}: only one can say how long a run is"
        return [("train.epochs", f"{message}; delete train.epochs (or set it to 1), or set train.steps to null")]
    if train.stop_after is not None and validate.every is None:
        message = f"train.stop_after is {train.stop_after}, but validate.every is null: nothing is ever validated"
        return [("train.stop_after", f"{message}; delete one")]
    if train.steps is not None and train.warmup >= train.steps:
        message = f"train.warmup is {train.warmup}, but train.steps {train.steps}: the run ends before train.schedule"
        return [("train.warmup", f"{message} begins; lower it, or give a fraction below 1")]
    if train.schedule == "constant" and train.final_learning_rate != 0:
        message = f"train.final_learning_rate is {train.final_learning_rate}, which a constant schedule never reaches"
        return [("train.final_learning_rate", f"{message}; delete it, or choose cosine or linear")]
    return []


def _validation(data: DataSection, validate: ValidateSection) -> _Found:
    if validate.every is None and isinstance(data.valid, str) and data.valid != DataSection().valid:
        message = f"data.valid is '{data.valid}', {_UNREAD}: validate.every is null"
        return [("data.valid", f"{message}; delete it, or set validate.every")]
    if validate.seed == ValidateSection().seed or (validate.every is not None and validate.metric == "rouge-l"):
        return []
    why = "validate.every is null" if validate.every is None else "validate.metric is loss, which draws nothing"
    return [("validate.seed", f"validate.seed is {validate.seed}, {_UNREAD}: {why}; delete it")]


def _tracking(track: TrackSection) -> _Found:
    if track.project is None or track.kind in ("wandb", "trackio"):
        return []
    message = f"track.project is '{track.project}', {_UNREAD}: track.kind is {track.kind}"
    return [("track.project", f"{message}; delete it, or set track.kind to wandb or trackio")]
