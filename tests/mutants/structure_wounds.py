"""Copies that miss a fix, knobs that mean two things, names looked into, unequal averages; see `wounds.py`."""

from __future__ import annotations

from mutants import invariants as first_invariants
from mutants import structure_invariants as invariants
from mutants.wounds import Mutant

COPY, KNOB, FLAG, AVERAGE = 4, 6, 8, 9
_REDUCE = "limbeck.reporting.reduce"

MUTANTS = (
    Mutant(
        COPY,
        "validation goes on dividing by each batch's own tokens",
        "limbeck.training.validation:Validator._losses",
        "weights, _ = distiller.objective.weights(batches, total=world.sum)",
        "weights = [distiller.objective.weights([each], total=world.sum)[0][0] for each in batches]",
        invariants.validation_measures_what_a_step_minimises,
    ),
    Mutant(
        COPY,
        "the ban on dropped ids is forgotten where answers are drawn",
        "limbeck.evaluation.answers:Answerer.answers",
        "banned_ids=self.banned_ids,",
        "",
        invariants.answers_and_rollouts_are_one_draw,
    ),
    Mutant(
        COPY,
        "answers stop at other ids than rollouts",
        "limbeck.evaluation.answers:Answerer.answers",
        "stop_ids=self.stop_ids,",
        "stop_ids=self.stop_ids | set(range(32, 97)),",
        invariants.answers_and_rollouts_are_one_draw,
    ),
    Mutant(
        KNOB,
        "the model's own temperature softens what is drawn",
        "limbeck.models.decoders:CausalDecoder.next_logp",
        "positions=positions, cache=cache)",
        "positions=positions, cache=cache) / (self._scorer.model.generation_config.temperature or 1.0)",
        invariants.nothing_is_inherited_from_a_models_own_settings,
    ),
    Mutant(
        KNOB,
        "a temperature of drawing reaches the teacher's token",
        "limbeck.revision.gathering:_columns",
        "sampling=Sampling()",
        "sampling=Sampling(temperature=0.5)",
        invariants.the_teachers_token_is_drawn_from_its_own_distribution,
    ),
    Mutant(
        FLAG,
        "a name that holds a known one stands for it",
        "limbeck.registry:Registry.__missing__",
        "raise UnknownName.among(self.what, name, self)",
        "return next(entry for known, entry in self.items() if known in name)",
        invariants.a_name_is_taken_whole_or_refused,
    ),
    Mutant(
        FLAG,
        "a kind that holds a known one stands for it",
        "limbeck.slots:component_of",
        "elif kind in SLOTS[slot]:",
        "elif (kind := next((each for each in SLOTS[slot] if each in kind), kind)) in SLOTS[slot]:",
        invariants.a_name_is_taken_whole_or_refused,
    ),
    Mutant(
        FLAG,
        "what is learned is looked up in the method's name",
        "limbeck.training.batching:micro_batches",
        'all(origin == "reference" for origin in drawn.origin)',
        '"kd" in session.recipe.method["base"]',
        first_invariants.the_supervised_term_reads_the_references,
    ),
    Mutant(
        AVERAGE,
        "a large corpus outweighs a small one",
        "limbeck.evaluation.results:Results.mean",
        "return sum(means) / len(means)",
        "return sum(m * len(v) for m, v in zip(means, corpora.values())) / sum(map(len, corpora.values()))",
        invariants.every_average_is_that_of_the_rows_by_loops,
    ),
    Mutant(
        AVERAGE,
        "an answer that stands twice counts once, the last one",
        f"{_REDUCE}:_by_seed",
        "if seed in seeds:",
        "if False:",
        invariants.rows_that_would_weigh_twice_or_unequally_are_refused,
    ),
    Mutant(
        AVERAGE,
        "examples with fewer seeds are averaged with the others",
        f"{_REDUCE}:_refuse_unequal_seeds",
        "if seeds.keys() != every:",
        "if False:",
        invariants.rows_that_would_weigh_twice_or_unequally_are_refused,
    ),
)
