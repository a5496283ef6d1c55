"""A local causal language model as a teacher: it answers requests like a server, and can score what others wrote."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from limbeck.blackbox.asking import Answer, Completion, Refusal, Request, Turn
from limbeck.data.templates import Template, choose_template
from limbeck.data.tokenizing import Encoder
from limbeck.errors import ConfigError, DataError
from limbeck.evaluation.identity import weights_fingerprint
from limbeck.losses.heads import auto_chunk
from limbeck.losses.views import chunks
from limbeck.models.decoders import CausalDecoder
from limbeck.models.extending import evaluating, extend
from limbeck.models.loading import Attention, load_model, load_tokenizer
from limbeck.models.pair import Pair
from limbeck.models.sampling import Sampling
from limbeck.models.scoring import Scorer, scored_tokens
from limbeck.records import EncodedRow, Example, Message
from limbeck.seeds import RowNoise, Seeds
from limbeck.types import pack_rows

_NO_CONTEXT = 1 << 20
_PURPOSE = "local-teacher"


@dataclass(frozen=True, kw_only=True)
class TokenScores:
    """A continuation's tokens, end of turn included, and the log-probability of each in nats."""

    tokens: tuple[int, ...]
    logp: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Nats a token."""
        return sum(self.logp) / len(self.logp)


class LocalTeacher:
    """Answers requests with a local causal model. A `Teacher`.

    The noise of an answer comes from its request alone (turns, settings, `seed`, `sample`, and this teacher's name), so
    that neither batch mates nor order enter; padding moves logits by rounding, as everywhere in Limbeck. Temperature 0
    is greedy. A `stop` text ends the answer before it, though its tokens were drawn and are counted. A prompt that
    fills the context is `Refusal("context")`, an answer without text `Refusal("empty")`. Tokens are counted as the
    model read and drew them; it costs nothing.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        tokenizer: PreTrainedTokenizerBase,
        template: str = "auto",
        batch_rows: int = 8,
        name: str = "",
    ) -> None:
        if batch_rows < 1:
            raise ConfigError(f"batch_rows is {batch_rows}; at least 1 is needed")
        self._pair = Pair.of(teacher=None, student=model, tokenizer=tokenizer)
        self._scorer = Scorer.of(model, vocabulary=self._pair.vocabulary)
        self._context = int(getattr(model.config, "max_position_embeddings", None) or _NO_CONTEXT)
        self._template: Template = choose_template(template, tokenizer)
        self._batch_rows = batch_rows
        weights = weights_fingerprint(model)
        self._name = f"local {name or model.name_or_path or type(model).__name__} {weights} {self._template.kind}"

    @classmethod
    def load(
        cls,
        name: str,
        *,
        template: str = "auto",
        batch_rows: int = 8,
        device: str = "auto",
        dtype: str = "auto",
        attention: Attention = "auto",
        allow_bin: bool = False,
    ) -> LocalTeacher:
        """The model of a packaged name, a local folder or a hub id. Raises `ModelError`, `ConfigError`."""
        tokenizer = load_tokenizer(name)
        model = load_model(
            name, device=device, dtype=dtype, attention=attention, allow_bin=allow_bin, frozen=True
        ).requires_grad_(False)
        return cls(model, tokenizer=tokenizer, template=template, batch_rows=batch_rows, name=name)

    @property
    def name(self) -> str:
        """The model's name, a hash of its weights, and the template."""
        return self._name

    def complete(self, requests: Sequence[Request]) -> list[Answer]:
        """One answer a request, in order; drawn in batches of like prompt length."""
        encoder = self._encoder()
        prompts = [encoder.prompt(_example(request.turns)) for request in requests]
        answers: dict[int, Answer] = {}
        alike: defaultdict[tuple[float, float], list[int]] = defaultdict(list)
        for place, request in enumerate(requests):
            if len(prompts[place]) >= self._context:
                message = f"the prompt has {len(prompts[place])} tokens, the context of {self._context} leaves no room"
                answers[place] = Refusal(reason="context", message=message)
            else:
                alike[request.temperature, request.top_p].append(place)
        with evaluating(self._scorer.model):
            for places in alike.values():
                places.sort(key=lambda place: (-len(prompts[place]), requests[place].key(self._name)))
                for first in range(0, len(places), self._batch_rows):
                    group = places[first : first + self._batch_rows]
                    drawn = self._drawn([requests[i] for i in group], [prompts[i] for i in group], encoder)
                    answers.update(zip(group, drawn, strict=True))
        return [answers[place] for place in range(len(requests))]

    def score(self, turns: Sequence[Turn], continuation: str) -> TokenScores:
        """The log-probability of each token of an answer to these turns, in nats; its end of turn is the last token.

            logp[t] = log p(token t | turns, tokens before t)

        Raises `DataError` where turns and answer are longer than the context.
        """
        return self.score_all([(turns, continuation)])[0]

    def score_all(self, pairs: Sequence[tuple[Sequence[Turn], str]]) -> list[TokenScores]:
        """`score` of each pair of turns and answer, in order, in batches of like length."""
        rows = [self._row(turns, text) for turns, text in pairs]
        order = sorted(range(len(rows)), key=lambda place: (-len(rows[place].tokens), place))
        found: dict[int, TokenScores] = {}
        with evaluating(self._scorer.model):
            for first in range(0, len(order), self._batch_rows):
                group = order[first : first + self._batch_rows]
                found.update(zip(group, self._scored([rows[place] for place in group]), strict=True))
        return [found[place] for place in range(len(rows))]

    def _encoder(self) -> Encoder:
        return Encoder(
            self._pair.tokenizer, self._template, max_prompt=max(1, self._context - 1), max_length=self._context
        )

    @property
    def _device(self) -> torch.device:
        return self._scorer.device

    def _drawn(self, requests: Sequence[Request], prompts: Sequence[tuple[int, ...]], encoder: Encoder) -> list[Answer]:
        started = time.monotonic()
        keys = [(request.key(self._name),) for request in requests]
        packed = pack_rows(
            prompts,
            [[False] * len(prompt) for prompt in prompts],
            origin=["prompt"] * len(prompts),
            keys=keys,
            pad_id=self._pair.pad_id,
        ).to(self._device)
        most = torch.tensor([request.max_tokens for request in requests], device=self._device)
        extension = extend(
            CausalDecoder(self._scorer),
            packed,
            start=packed.lengths,
            limit=(packed.lengths + most).clamp(max=self._context),
            rows=torch.ones(len(prompts), dtype=torch.bool),
            sampling=Sampling(
                temperature=requests[0].temperature,
                top_p=requests[0].top_p,
                stop_ids=self._pair.stop_ids,
                banned_ids=frozenset(self._pair.vocabulary.dropped_student),
            ),
            noise=RowNoise([Seeds(0).child(_PURPOSE, *key) for key in keys]),
        )
        seconds = (time.monotonic() - started) / len(requests)
        answers = []
        for row, (request, prompt) in enumerate(zip(requests, prompts, strict=True)):
            ids = extension.sequences.tokens[row][extension.sequences.is_response[row]].tolist()
            stopped = bool(extension.stopped[row])
            said = Completion(
                text=encoder.decode(ids[:-1] if stopped else ids),
                finish="stop" if stopped else "length",
                prompt_tokens=len(prompt),
                completion_tokens=len(ids),
                seconds=seconds,
            )
            answers.append(_ended(said, request.stop))
        return answers

    def _row(self, turns: Sequence[Turn], text: str) -> EncodedRow:
        row = self._encoder().row(_example(turns), text)
        if row is None or row.cut:
            raise DataError(
                f"turns and answer are longer than the model's context of {self._context} tokens: {text[:60]!r}\n"
                "  score a shorter answer, or use a model that reads more"
            )
        return row

    def _scored(self, rows: Sequence[EncodedRow]) -> list[TokenScores]:
        batch = pack_rows(
            [row.tokens for row in rows],
            [row.is_response for row in rows],
            origin=["reference"] * len(rows),
            keys=[(row.id,) for row in rows],
            pad_id=self._pair.pad_id,
        ).to(self._device)
        where = scored_tokens(batch)
        view = self._scorer.view(batch, where)
        parts: list[Any] = []
        for chunk in chunks(len(where), auto_chunk(self._pair.vocabulary.width, self._device.type)):
            logp_nV = view.log_probabilities(chunk)
            parts.append(logp_nV.gather(1, where.tokens[chunk, None]).squeeze(1).float().cpu())
        logp_N, rows_N = torch.cat(parts), where.rows.cpu()
        return [
            TokenScores(tokens=row.tokens[len(row.prompt) :], logp=tuple(logp_N[rows_N == place].tolist()))
            for place, row in enumerate(rows)
        ]


def _ended(said: Completion, stops: Sequence[str]) -> Answer:
    """The answer up to the first of its stop texts."""
    found = [place for stop in stops if stop and (place := said.text.find(stop)) >= 0]
    if found:
        said = replace(said, text=said.text[: min(found)].rstrip(), finish="stop")
    if not said.text.strip():
        return Refusal(reason="empty", message=f"an answer without text, finished by '{said.finish}'")
    return said


def _example(turns: Sequence[Turn]) -> Example:
    messages = tuple(Message(role=turn.role, content=turn.content) for turn in turns)
    return Example(id="request", messages=messages, references=("",))
