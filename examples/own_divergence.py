"""Match the teacher by a divergence of your own, beside forward KL on the same rows and seed.

python examples/own_divergence.py my.jsonl --teacher BIG --student SMALL
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

import limbeck
from limbeck.losses import Match
from limbeck.methods import Method, Weights
from limbeck.sequences import Mixture, Student
from limbeck.sequences.fixed import Fixed


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Renyi:
    """Rényi divergence of order `alpha`: log(Σ_v t_v^α · s_v^(1−α)) / (α − 1), in nats; KL(t‖s) as α goes to 1."""

    alpha: float = Field(default=0.5, gt=0, lt=1)

    def __call__(self, *, target_logp: Tensor, student_logp: Tensor) -> Tensor:
        """One number a token from two rows of log-probabilities; no mean: Limbeck weighs each token once."""
        mixed = self.alpha * target_logp + (1 - self.alpha) * student_logp
        return mixed.logsumexp(-1) / (self.alpha - 1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train two students that differ in the divergence alone, and print what each came to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--student", required=True)
    parser.add_argument("--alpha", type=float, default=0.5)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-rows", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--out", type=Path, default=Path("runs/own-divergence"))
    given = parser.parse_args(arguments)

    # Half of the steps on the student's own answers, half on the references, as GKD; only the divergence is new.
    own = Method(
        sequences=Mixture(Student(), Fixed(), 0.5),
        token=Match(Renyi(alpha=given.alpha)),
        weights=Weights(token=1.0, supervised=0.0),
    )
    for name, method in (
        ("renyi", own),
        ("forward-kl", {"base": "gkd", "token": {"divergence": {"kind": "forward-kl"}}}),
    ):
        run = limbeck.train(
            {
                "method": method,
                "models": {"teacher": given.teacher, "student": given.student},
                "data": {
                    "corpus": str(given.data),
                    "max_prompt": given.max_length // 2,
                    "max_length": given.max_length,
                },
                "sampling": {"max_new_tokens": given.max_length // 2},
                "train": {"steps": given.steps, "batch_rows": given.batch_rows, "learning_rate": 2e-5},
                "validate": {"every": given.steps},
                "run": str(given.out / name),
            }
        )
        assert run.best is not None, "the last step is validated"
        print(f"{name}: cross-entropy {run.best['cross_entropy']:.3f} nats a token on rows that were not trained on")


if __name__ == "__main__":
    main()
