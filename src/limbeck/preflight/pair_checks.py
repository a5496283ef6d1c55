"""What can be said of teacher and student from their configurations and tokenizers."""

from __future__ import annotations

from typing import Any

from limbeck.config import Recipe
from limbeck.config.uses import matches_teacher, student_draws
from limbeck.data.templates import ChatTemplate, choose_template, end_of_turn
from limbeck.errors import LimbeckError
from limbeck.models.loading import load_config, load_tokenizer
from limbeck.models.pair import Vocabulary, compare_vocabularies
from limbeck.preflight.findings import Finding, failed, ok

# Above this share of ids that differ, a pair is likely to be of two tokenizers that only begin alike.
_MANY_DROPPED = 0.01


def pair_findings(recipe: Recipe) -> list[Finding]:
    """Vocabulary, template, padding, stop tokens, and lengths against what the models can read."""
    names = {"student": recipe.models.student, "teacher": recipe.models.teacher}
    found: list[Finding] = []
    configs: dict[str, Any] = {}
    tokenizers: dict[str, Any] = {}
    for role, name in names.items():
        if name is None:
            continue
        try:
            configs[role] = load_config(name).get_text_config()
            tokenizers[role] = load_tokenizer(name)
        except LimbeckError as error:
            found.append(failed(role, error))
    if "student" in tokenizers:
        found += _template(recipe, tokenizers)
        found += _padding(tokenizers["student"], configs["student"])
    if {"student", "teacher"} <= tokenizers.keys() and matches_teacher(recipe.built_method()):
        found.append(_vocabulary(recipe))
    if configs:
        found.append(_context(recipe, configs))
    found += _lengths(recipe)
    return found


def matched_vocabulary(recipe: Recipe) -> Vocabulary | None:
    """What teacher and student share, from configurations and tokenizers; None where nothing is matched with a teacher.

    Raises `ModelError`, `VocabularyMismatch`.
    """
    teacher, student = recipe.models.teacher, recipe.models.student
    if teacher is None or not matches_teacher(recipe.built_method()):
        return None
    return compare_vocabularies(
        teacher_tokenizer=load_tokenizer(teacher),
        student_tokenizer=load_tokenizer(student),
        teacher_width=int(load_config(teacher).get_text_config().vocab_size),
        student_width=int(load_config(student).get_text_config().vocab_size),
    )


def _vocabulary(recipe: Recipe) -> Finding:
    try:
        vocabulary = matched_vocabulary(recipe)
        assert vocabulary is not None, "asked of a pair that is matched"
    except LimbeckError as error:
        return failed("vocabulary", error)
    dropped = vocabulary.dropped
    if not dropped:
        return ok("vocabulary", f"{vocabulary.size:,} token ids, the same in teacher and student")
    shown = "; ".join(f"{id}: {text}" for id, text in dropped[:3])
    message = f"{len(dropped):,} added or special token ids differ and are left out of losses and drawing ({shown})"
    if len(dropped) > _MANY_DROPPED * vocabulary.size:
        advice = "check that both models are of one family; a text method (seqkd) needs no shared vocabulary"
        return Finding(check="vocabulary", severity="warning", message=message, advice=advice)
    return Finding(check="vocabulary", severity="note", message=message)


def _template(recipe: Recipe, tokenizers: dict[str, Any]) -> list[Finding]:
    student, kwargs = tokenizers["student"], dict(recipe.models.chat_template_kwargs)
    try:
        template = choose_template(recipe.data.template, student, kwargs)
        end = end_of_turn(student, template)
    except LimbeckError as error:
        return [failed("template", error)]
    found = [ok("template", f"{template.kind}; a response ends with {student.convert_ids_to_tokens(end)!r}")]
    if isinstance(template, ChatTemplate) and template.unlearned:
        message = f"the chat template writes {template.unlearned!r} before an answer, which is not learned"
        advice = "let models.chat_template_kwargs put it into the prompt, or write it into the responses"
        found.append(Finding(check="template", severity="warning", message=message, advice=advice))
    teacher = tokenizers.get("teacher")
    if teacher is None or not matches_teacher(recipe.built_method()):
        return found
    if template.kind == "chat" and teacher.chat_template != student.chat_template:
        has = "none" if teacher.chat_template is None else "another one"
        message = f"the teacher reads the student's chat template, but its own tokenizer has {has}"
        advice = "give the student the teacher's tokenizer, or check that the teacher answers well in this layout"
        found.append(Finding(check="template", severity="warning", message=message, advice=advice))
    if template.kind == "paper" and teacher.chat_template is not None:
        message = "the teacher has a chat template, but both models read the paper's layout"
        advice = (
            "put the teacher's chat template into the student's tokenizer, unless the teacher was tuned on Alpaca's"
        )
        found.append(Finding(check="template", severity="warning", message=message, advice=advice))
    return found


def _padding(tokenizer: Any, config: Any) -> list[Finding]:
    pad, eos = tokenizer.pad_token_id, tokenizer.eos_token_id
    width = int(config.vocab_size)
    found = []
    if len(tokenizer) > width:
        message = f"the tokenizer has {len(tokenizer):,} tokens, but the model only {width:,} columns"
        advice = "if rows hold the others, resize the model's embeddings, or take the tokenizer that belongs to it"
        found.append(Finding(check="padding", severity="warning", message=message, advice=advice))
    if pad is None:
        found.append(Finding(check="padding", severity="note", message="no pad token; EOS fills the batches"))
    elif pad == eos:
        message = (
            f"pad and EOS are one token ({tokenizer.pad_token!r}). Masks here never come from an id, so that EOS is "
            "learned all the same"
        )
        advice = "tools that mask by id would never teach such a student to stop"
        found.append(Finding(check="padding", severity="note", message=message, advice=advice))
    return found or [ok("padding", f"pad {tokenizer.pad_token!r} is not EOS {tokenizer.eos_token!r}")]


def _context(recipe: Recipe, configs: dict[str, Any]) -> Finding:
    data = recipe.data
    limits = {
        role: int(config.max_position_embeddings)
        for role, config in configs.items()
        if getattr(config, "max_position_embeddings", None)
    }
    if not limits:
        return ok("context", "the models state no limit")
    role = min(limits, key=lambda name: limits[name])
    if data.max_length <= limits[role]:
        return ok("context", f"rows of {data.max_length} tokens fit into the {role}'s context of {limits[role]}")
    message = f"data.max_length is {data.max_length}, but the {role} reads at most {limits[role]} tokens"
    is_writer = role == "teacher" and not matches_teacher(recipe.built_method())
    if is_writer and data.max_length <= limits.get("student", data.max_length):
        advice = "the answers that it writes are cut there; take a teacher that reads more, or lower data.max_length"
        return Finding(check="context", severity="warning", message=message, advice=advice)
    return Finding(check="context", severity="error", message=message, advice="lower data.max_length")


def _lengths(recipe: Recipe) -> list[Finding]:
    data, new = recipe.data, recipe.sampling.max_new_tokens
    if not student_draws(recipe.built_method().sequences) or data.max_prompt + new <= data.max_length:
        return []
    message = (
        f"a prompt of data.max_prompt {data.max_prompt} and sampling.max_new_tokens {new} are more than "
        f"data.max_length {data.max_length}: drawn responses to long prompts are cut there"
    )
    advice = f"set data.max_length={data.max_prompt + new}, or lower sampling.max_new_tokens"
    return [Finding(check="lengths", severity="note", message=message, advice=advice)]
