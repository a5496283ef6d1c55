"""How MiniLLM (arXiv 2306.08543) can be built wrong, as one-line changes to the real functions; see `wounds.py`."""

from __future__ import annotations

from mutants import minillm_invariants as invariants
from mutants.wounds import Mutant

_TERM = "limbeck.losses.policy_gradient:ReverseKLGradient"
MINILLM = 13

MUTANTS = (
    Mutant(
        MINILLM,
        "the importance weight is on the single step",
        f"{_TERM}.measured",
        "weight_n * single_n if self.weigh_single_step else single_n",
        "weight_n * single_n",
        invariants.the_single_step_is_the_whole_reverse_kl,
    ),
    Mutant(
        MINILLM,
        "the return has the token's own reward, which is in the single step",
        f"{_TERM}.returns",
        "(following, behind) if starts_next else (whole, behind + 1)",
        "(whole, behind + 1)",
        invariants.a_return_is_what_follows_its_token_in_its_own_row,
    ),
    Mutant(
        MINILLM,
        "a return goes on into the next row",
        f"{_TERM}.returns",
        "own, following = rewards[first : first + length], 0.0",
        "own, following = rewards[first : first + length], rewards[-1]",
        invariants.a_return_is_what_follows_its_token_in_its_own_row,
    ),
    Mutant(
        MINILLM,
        "the advantage is not detached",
        f"{_TERM}.measured",
        "drawn.advantage.to(single_n.dtype).detach()",
        "drawn.advantage.to(single_n.dtype)",
        invariants.an_advantage_gives_no_gradient,
    ),
    Mutant(
        MINILLM,
        "every chunk gets the experience of the first",
        "limbeck.losses.walking:_parts",
        "walk.experience.take(slice(place.start, place.start + len(raw_nV)))",
        "walk.experience.take(slice(0, len(raw_nV)))",
        invariants.each_token_learns_from_its_own_experience,
    ),
    Mutant(
        MINILLM,
        "experience stays where its row was",
        "limbeck.types:Sequences._entries",
        "for i in index",
        "for i in sorted(index)",
        invariants.experience_goes_with_its_row,
    ),
    Mutant(
        MINILLM,
        "the clip takes the better of the two",
        f"{_TERM}.measured",
        "torch.minimum",
        "torch.maximum",
        invariants.the_loss_is_clipped_from_above_alone,
    ),
)
