"""How MGSR (arXiv 2407.10068) can be built wrong, as one-line changes to the real functions; see `wounds.py`."""

from __future__ import annotations

from mutants import mgsr_invariants as invariants
from mutants.wounds import Mutant

_REVISION = "limbeck.revision.correcting"
_DAC = "limbeck.losses.dac:ClippedKL"
_CLIPPING = "limbeck.losses.clipping"
MGSR = 11

MUTANTS = (
    Mutant(
        MGSR,
        "the first mismatch is corrected",
        f"{_REVISION}:_errors",
        "if row not in best or score > best[row][0]:",
        "if row not in best:",
        invariants.the_largest_mismatch_is_corrected,
    ),
    Mutant(
        MGSR,
        "the largest divergence is corrected, mismatch or not",
        "limbeck.revision.gathering:_eligible",
        "& (where.tokens != teacher_N)",
        "",
        invariants.the_largest_mismatch_is_corrected,
    ),
    Mutant(
        MGSR,
        "the prefix loses its last token",
        f"{_REVISION}:_redrawn",
        "tokens[each.row][: each.position] for each in found",
        "[*tokens[each.row][: each.position - 1], 0] for each in found",
        invariants.everything_before_the_correction_is_kept,
    ),
    Mutant(
        MGSR,
        "the student's token stays where the error was",
        f"{_REVISION}:_redrawn",
        "found[place].teacher_token",
        "found[place].drawn_token",
        invariants.everything_before_the_correction_is_kept,
    ),
    Mutant(
        MGSR,
        "KL is taken the other way round",
        "limbeck.revision.gathering:_columns",
        '"kl_student_teacher": ReverseKL()',
        '"kl_student_teacher": ForwardKL()',
        invariants.the_error_is_found_by_the_students_surprise,
    ),
    Mutant(
        MGSR,
        "the target class is counted twice",
        f"{_CLIPPING}:clipped_loss",
        "kept_nk = m_nk * p_nk",
        "kept_nk = torch.cat([2 * p_nk[:, :1], (m_nk * p_nk)[:, 1:]], dim=-1)",
        invariants.the_clip_is_that_of_the_equations,
    ),
    Mutant(
        MGSR,
        "the target class can be clipped away",
        "limbeck.losses.gating:Gating.__call__",
        "log_nk.masked_fill(is_target_nk, 0.0)",
        "log_nk",
        invariants.the_clip_is_that_of_the_equations,
    ),
    Mutant(
        MGSR,
        "the other classes are forgotten",
        f"{_CLIPPING}:clipped_loss",
        "mass_n = mass_n + m_r_n * rest.mass",
        "pass",
        invariants.the_clip_is_that_of_the_equations,
    ),
    Mutant(
        MGSR,
        "thresholds follow the student",
        f"{_DAC}._clip",
        "student_nV.detach()",
        "student_nV",
        invariants.the_thresholds_give_the_student_no_gradient,
    ),
    Mutant(
        MGSR,
        "a span crosses into the next row",
        "limbeck.models.scoring:span_pairs",
        "place[row, a : b - 1]",
        "place[row, a + 1 : b]",
        invariants.no_pair_leaves_its_span_or_its_row,
    ),
    Mutant(
        MGSR,
        "pairs are counted from the first response token",
        "limbeck.training.spanning:pairs_of",
        "(first + start, first + end)",
        "(start + 1, end + 1)",
        invariants.a_span_term_reads_the_spans_of_what_is_learned,
    ),
    Mutant(
        MGSR,
        "spans are averaged by micro-batch",
        "limbeck.losses.objective:Objective._of_batch",
        "each = counts.tokens[name] if",
        "each = pairs.num_spans if",
        invariants.a_span_term_reads_the_spans_of_what_is_learned,
    ),
    Mutant(
        MGSR,
        "revised rows are learned as references",
        "limbeck.training.step:micro_batches",
        'active if is_reference else active - {"supervised"}',
        "active",
        invariants.revised_rows_are_not_learned_as_references,
    ),
)
