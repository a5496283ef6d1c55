"""Where a teacher listens, what its calls cost, and the most that they may come to."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass as settings


def _without_password(url: str) -> str:
    if "@" in url.partition("://")[2].partition("/")[0]:
        raise ValueError(
            "it holds a name or a password, and addresses are written into recipes and ledgers; leave it out, and name "
            "the environment variable of a key: teacher.key_variable"
        )
    return url


Address = Annotated[str, AfterValidator(_without_password)]
"""An address without a name or password in it."""


@settings(frozen=True, config=ConfigDict(extra="forbid", hide_input_in_errors=True))
class Endpoint:
    """Where a teacher listens. `key_variable` names the environment variable that holds its key; the key itself is
    never written anywhere, which is why an address with a password in it is refused. At most `concurrency`
    calls are under way at once. Seconds: `timeout` for one answer, `longest_wait` between two attempts where the server
    names no time."""

    url: Address
    model: str
    key_variable: str | None = None
    concurrency: int = Field(default=4, ge=1)
    timeout: float = Field(default=120.0, gt=0)
    attempts: int = Field(default=6, ge=1)
    first_wait: float = Field(default=1.0, ge=0)
    longest_wait: float = Field(default=60.0, ge=0)


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Budget:
    """The most that a ledger's calls may come to: calls, tokens of prompts and completions, money. None: no limit."""

    calls: int | None = Field(default=None, ge=0)
    tokens: int | None = Field(default=None, ge=0)
    money: float | None = Field(default=None, ge=0)


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Prices:
    """Money a million tokens."""

    prompt: float = Field(default=0.0, ge=0)
    completion: float = Field(default=0.0, ge=0)

    def cost(self, *, prompt_tokens: int, completion_tokens: int) -> float:
        """What a call costs.

        >>> Prices(prompt=2.0, completion=6.0).cost(prompt_tokens=500_000, completion_tokens=1_000)
        1.006
        """
        return (self.prompt * prompt_tokens + self.completion * completion_tokens) / 1e6
