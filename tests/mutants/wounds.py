"""The old wounds of the field as one-line changes to the real functions (style guide, table of wounds)."""

from __future__ import annotations
import __future__ as futures

import importlib
import inspect
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from mutants import invariants


@dataclass(frozen=True)
class Mutant:
    """`old` is replaced by `new` in the source of `target` ("module:function" or "module:Class.method")."""

    row: int
    name: str
    target: str
    old: str
    new: str
    killed_by: Callable[[], None]

    def introduce(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put the changed function in the place of the real one, wherever it has been imported to."""
        module_name, path = self.target.split(":")
        module = importlib.import_module(module_name)
        *classes, name = path.split(".")
        owner: Any = module
        for part in classes:
            owner = getattr(owner, part)
        original = inspect.getattr_static(owner, name)
        source = textwrap.dedent(inspect.getsource(getattr(original, "fget", None) or original))
        assert source.count(self.old) == 1, f"'{self.old}' stands {source.count(self.old)} times in {self.target}"
        changed = source.replace(self.old, self.new)
        names: dict[str, Any] = {}
        flags = futures.annotations.compiler_flag
        exec(compile(changed, f"<mutant: {self.name}>", "exec", flags=flags), vars(module), names)
        if classes:
            monkeypatch.setattr(owner, name, names[name])
            return
        for holder in [held for key, held in sys.modules.items() if key.split(".")[0] in ("limbeck", "mutants")]:
            for alias, value in list(vars(holder).items()):
                if value is original:
                    monkeypatch.setattr(holder, alias, names[name])


_SCORED = "limbeck.types:Sequences.scored"
_SCORING = "limbeck.models.scoring"
_OBJECTIVE = "limbeck.losses.objective:Objective"
_ENCODER = "limbeck.data.tokenizing:Encoder"
_EACH_ALONE = "self._of_batch(batch, self.count([batch], total=total))"

MUTANTS = (
    Mutant(
        1,
        "the shift is done twice",
        f"{_SCORING}:predicting_states",
        "where.positions - 1",
        "where.positions - 2",
        invariants.every_response_token_is_scored_given_its_prefix,
    ),
    Mutant(
        1,
        "the shift is done nowhere",
        f"{_SCORING}:predicting_states",
        "where.positions - 1",
        "where.positions",
        invariants.every_response_token_is_scored_given_its_prefix,
    ),
    Mutant(
        1,
        "tokens are taken one place early",
        f"{_SCORING}:scored_tokens",
        "sequences.tokens[rows, positions]",
        "sequences.tokens[rows, positions - 1]",
        invariants.the_loss_is_the_one_transformers_computes_from_labels,
    ),
    Mutant(
        1,
        "the mask is shifted the other way",
        _SCORED,
        "predicted[:, 0] = False",
        "predicted[:, 0], predicted[:, 1:] = False, self.is_response[:, :-1]",
        invariants.the_end_of_a_turn_is_learned_where_pad_is_eos,
    ),
    Mutant(
        1,
        "positions count the padding",
        "limbeck.models.extending:_Loop.begun",
        "positions = (attended.long().cumsum(dim=1) - 1).clamp(min=0)",
        "positions = torch.arange(tokens.shape[1]).expand_as(tokens)",
        invariants.decoding_draws_from_the_distribution_that_is_scored,
    ),
    Mutant(
        1,
        "the position stands still while drawing",
        "limbeck.models.extending:_Loop.step",
        "table.positions[:, -1:] + 1",
        "table.positions[:, -1:]",
        invariants.decoding_draws_from_the_distribution_that_is_scored,
    ),
    Mutant(
        2,
        "the mask is rebuilt from the pad id, which is eos",
        _SCORED,
        "self.is_response.clone()",
        "self.is_response & (self.tokens != 258)",
        invariants.the_end_of_a_turn_is_learned_where_pad_is_eos,
    ),
    Mutant(
        2,
        "everything that is not padding is learned, prompts too",
        _SCORED,
        "self.is_response.clone()",
        "self.attended.clone()",
        invariants.the_loss_is_the_one_transformers_computes_from_labels,
    ),
    Mutant(
        2,
        "attention is worked out from the pad id",
        "limbeck.types:pack_rows",
        "attended[b, : len(row)] = True",
        "attended[b, : len(row)] = tokens[b, : len(row)] != pad_id",
        invariants.the_pad_id_is_never_read,
    ),
    Mutant(
        2,
        "models do not attend to eos, which pads",
        f"{_SCORING}:Scorer.states",
        "sequences.attended.long()",
        "(sequences.tokens != 258).long()",
        invariants.the_loss_is_the_one_transformers_computes_from_labels,
    ),
    Mutant(
        2,
        "the end of a turn is no response token",
        f"{_ENCODER}.row",
        "[*writer.is_response, True]",
        "[*writer.is_response, False]",
        invariants.the_end_of_a_turn_is_learned_where_pad_is_eos,
    ),
    Mutant(
        2,
        "a drawn stop token is no response token",
        "limbeck.models.extending:_assemble",
        "is_response[row, first:end]",
        "is_response[row, first : end - int(drawn.stopped[i])]",
        invariants.a_drawn_stop_token_is_learned,
    ),
    Mutant(
        2,
        "a response cut at the limit ends as if it were whole",
        f"{_ENCODER}.row",
        "[*writer.tokens, self.end_id][: self.max_length]",
        "[*writer.tokens[: self.max_length - 1], self.end_id]",
        invariants.a_cut_response_teaches_no_end,
    ),
    Mutant(
        3,
        "the mean of micro-batch means",
        f"{_OBJECTIVE}.weights",
        "[self._of_batch(batch, counts) for batch in batches]",
        f"[{{k: w / len(batches) for k, w in {_EACH_ALONE}.items()}} for batch in batches]",
        invariants.any_split_into_micro_batches_gives_one_gradient,
    ),
    Mutant(
        3,
        "the sum of micro-batch means",
        f"{_OBJECTIVE}.weights",
        "[self._of_batch(batch, counts) for batch in batches]",
        f"[{_EACH_ALONE} for batch in batches]",
        invariants.the_weights_of_each_term_add_up_to_one,
    ),
    Mutant(
        3,
        "every rank counts for itself",
        f"{_OBJECTIVE}.count",
        "numbers = total(numbers)",
        "numbers = numbers",
        invariants.two_ranks_give_the_gradient_of_one,
    ),
    Mutant(
        3,
        "gradients are averaged over ranks after weights made for their sum",
        "limbeck.training.step:_backward",
        '(out["loss"] * world.size).backward()',
        'out["loss"].backward()',
        invariants.two_ranks_give_the_gradient_of_one,
    ),
    Mutant(
        3,
        "division by the padded length",
        f"{_OBJECTIVE}._of_batch",
        "1.0 / counts.tokens[name]",
        "1.0 / batch.sequences.tokens.numel()",
        invariants.a_reduction_is_the_mean_that_it_is_named_after,
    ),
    Mutant(
        3,
        "a row is divided by its padded length",
        f"{_OBJECTIVE}._of_batch",
        "per_row[row_of_N].float()",
        "torch.full_like(row_of_N, batch.sequences.tokens.shape[1]).float()",
        invariants.any_split_into_micro_batches_gives_one_gradient,
    ),
    Mutant(
        3,
        "prompt tokens are counted",
        f"{_OBJECTIVE}.count",
        "batch.sequences.scored",
        "batch.sequences.attended",
        invariants.the_weights_of_each_term_add_up_to_one,
    ),
    Mutant(
        3,
        "division by the vocabulary",
        "limbeck.losses.match:Match.__call__",
        ".detach() * gap_n",
        ".detach() * gap_n / scores.student_logp.shape[1]",
        invariants.kl_is_the_formula_on_plain_logits,
    ),
    Mutant(
        5,
        "the teacher is scored at unshifted positions",
        f"{_SCORING}:Scorer.view",
        "self.predicting(sequences, where)",
        "self.states(sequences)[where.rows, where.positions]",
        invariants.a_teacher_that_is_the_student_costs_nothing,
    ),
    Mutant(
        5,
        "the teacher reads another row's prompt",
        "limbeck.training.validation:teacher_views",
        "teacher.view(moved, scored_tokens(moved))",
        "teacher.view(moved.rows([*range(1, len(moved)), 0]), scored_tokens(moved))",
        invariants.a_teacher_that_is_the_student_costs_nothing,
    ),
    Mutant(
        5,
        "the teacher reads the response after another prompt",
        f"{_SCORING}:Scorer.view",
        "self.predicting(sequences, where)",
        'self.predicting(Sequences(**{**vars(sequences), "tokens": sequences.tokens * sequences.is_response}), where)',
        invariants.kl_is_the_formula_on_plain_logits,
    ),
    Mutant(
        5,
        "the template's BOS and the tokenizer's",
        f"{_ENCODER}.__init__",
        "[] if template.adds_bos else _bos(tokenizer)",
        "_bos(tokenizer)",
        invariants.a_rows_prompt_is_the_templates_own,
    ),
    Mutant(
        5,
        "what is asked is cut at its end, header and all",
        f"{_ENCODER}.prompt",
        "self._prompt(example)[0].tokens",
        "self._write(example.messages).tokens[: self.max_prompt]",
        invariants.training_rollouts_and_evaluation_ask_alike,
    ),
    Mutant(
        5,
        "rollouts begin without the last token of the header",
        "limbeck.data.loader:prompts",
        "[row.prompt for _, row in items],\n        [[False] * len(row.prompt) for _, row in items]",
        "[row.prompt[:-1] for _, row in items], [[False] * (len(row.prompt) - 1) for _, row in items]",
        invariants.training_rollouts_and_evaluation_ask_alike,
    ),
    Mutant(
        5,
        "evaluation asks without the template",
        "limbeck.evaluation.answers:Answerer.answers",
        "self.encoder.prompt(example)",
        'tuple(self.encoder.tokenizer(example.messages[-1].content)["input_ids"])',
        invariants.training_rollouts_and_evaluation_ask_alike,
    ),
    Mutant(
        5,
        "the student's own answers are learned as references",
        "limbeck.training.batching:micro_batches",
        'active if is_reference else active - {"supervised"}',
        "active",
        invariants.the_supervised_term_reads_the_references,
    ),
    Mutant(
        7,
        "a first token is learned from the row's last state",
        _SCORED,
        "predicted[:, 0] = False",
        "pass",
        invariants.a_step_without_a_token_is_refused,
    ),
    Mutant(
        7,
        "a step without a token is a loss of 0",
        f"{_OBJECTIVE}.weights",
        "if not any(counts.tokens[name] for name in self.terms.keys() & set(self.row_names)):",
        "if False:",
        invariants.a_step_without_a_token_is_refused,
    ),
    Mutant(
        7,
        "counts are kept away from 0",
        f"{_OBJECTIVE}.count",
        "int(numbers[i, 0])",
        "max(1, int(numbers[i, 0]))",
        invariants.a_step_without_a_token_is_refused,
    ),
    Mutant(
        7,
        "a corpus of dropped rows is an empty epoch",
        f"{_ENCODER}.rows",
        "if not encoded:",
        "if False:",
        invariants.a_corpus_without_a_row_is_refused,
    ),
)
