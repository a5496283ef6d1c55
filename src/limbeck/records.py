"""What files hold, as frozen records without tensors: examples, encoded rows, answers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, kw_only=True)
class Message:
    """One turn. `input` is the context that instruction data keeps apart from the instruction ("" if none)."""

    role: Role
    content: str
    input: str = ""


@dataclass(frozen=True, kw_only=True)
class Example:
    """The messages up to the last assistant turn, and the references: what that turn may say.

    `references[0]` is the one that is trained on; scores take the best over all of them. `id` is unique within its
    corpus. `source` says where the row stands, for error messages: "train.jsonl line 17".
    """

    id: str
    messages: tuple[Message, ...]
    references: tuple[str, ...]
    category: str = ""
    corpus: str = ""
    source: str = ""

    @property
    def question(self) -> str:
        """What is asked, for people: the last turn with its input; of several turns all, each with its role."""
        texts = ["\n\n".join(filter(None, (turn.content, turn.input))) for turn in self.messages]
        if len(texts) == 1:
            return texts[0]
        return "\n\n".join(f"{turn.role}: {text}" for turn, text in zip(self.messages, texts, strict=True))

    def content_hash(self) -> str:
        """A hash of messages and references; does not depend on id, corpus or place."""
        body = [[asdict(message) for message in self.messages], list(self.references)]
        return hashlib.blake2b(json.dumps(body, ensure_ascii=False).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, kw_only=True)
class EncodedRow:
    """An example as token ids: the prompt, and the reference response with its end-of-turn token.

    `prompt` ends with the response header. `tokens` begins with `prompt`; `is_response[i]` says that token i is to be
    learned. A response that was cut at the length limit has no end-of-turn token.
    """

    id: str
    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    is_response: tuple[bool, ...]
    cut: bool = False


@dataclass(frozen=True, kw_only=True)
class AnswerRow:
    """One answer of one model: corpus × decoding seed × example; `scores` by the scorer's name, `question` for people.

    `tokens` are the ids as they were drawn, end-of-turn included: text does not always encode back to them.
    """

    corpus: str
    seed: int
    id: str
    text: str
    tokens: tuple[int, ...] = ()
    num_tokens: int
    stopped: bool
    references: tuple[str, ...] = ()
    category: str = ""
    question: str = ""
    scores: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """A dictionary that `json.dumps` takes."""
        return asdict(self)
