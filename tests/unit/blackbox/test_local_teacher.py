"""A local model as teacher: what it draws depends on the request alone, and what it scores is what the model says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from limbeck.blackbox.asking import Answer, Completion, Refusal, Request, Teacher, Turn
from limbeck.blackbox.endpoints import Budget
from limbeck.blackbox.items import Item
from limbeck.blackbox.ledger import Ledger
from limbeck.blackbox.local_teacher import LocalTeacher
from limbeck.blackbox.writers import Desk, writer_of
from limbeck.blackbox.writing import Assignment
from limbeck.errors import ConfigError, DataError, Stopped
from limbeck.testing import byte_tokenizer, save_tiny, tiny_model

TOKENIZER = byte_tokenizer()


def teacher(*, batch_rows: int = 8, seed: int = 0, template: str = "auto") -> LocalTeacher:
    return LocalTeacher(
        tiny_model(seed=seed), tokenizer=TOKENIZER, batch_rows=batch_rows, template=template, name="tiny"
    )


def request(text: str, *, max_tokens: int = 6, **settings: object) -> Request:
    return Request(turns=(Turn(role="user", content=text),), max_tokens=max_tokens, **settings)  # type: ignore[arg-type]


def said(answers: list[Answer]) -> list[tuple[str, str]]:
    """What was said and how it ended; a refusal's reason where nothing was."""
    return [(each.text, each.finish) if isinstance(each, Completion) else ("", each.reason) for each in answers]


REQUESTS = [request("2+2?" * (i + 1), temperature=1.0, max_tokens=3 + i, sample=i % 2) for i in range(5)]


def test_an_answer_depends_on_its_request_alone() -> None:
    together = said(teacher().complete(REQUESTS))
    assert together == said(teacher(batch_rows=2).complete(REQUESTS))
    assert together == said(teacher().complete(REQUESTS[::-1]))[::-1]
    assert together == [said(teacher().complete([each]))[0] for each in REQUESTS]
    assert len(set(together)) > 1


def test_seed_sample_and_temperature_tell_draws_apart() -> None:
    one = request("hello", temperature=1.0, max_tokens=12)
    others = [one, replace(one, seed=1), replace(one, sample=1), replace(one, temperature=0.0)]
    assert len(set(said(teacher().complete(others)))) == 4
    greedy = replace(one, temperature=0.0)
    assert said(teacher().complete([greedy])) == said(teacher().complete([replace(greedy, sample=5)]))


def test_greedy_answers_are_those_of_generate() -> None:
    model = tiny_model()
    (answer,) = LocalTeacher(model, tokenizer=TOKENIZER).complete([request("2+2?", max_tokens=5)])
    prompt = torch.tensor([TOKENIZER.encode("<bos><turn>u:2+2?<end><turn>a:")])
    expected = model.generate(prompt, max_new_tokens=5, do_sample=False, eos_token_id=[258, 260], pad_token_id=256)
    ids = expected[0, prompt.shape[1] :].tolist()
    text = TOKENIZER.decode(ids, skip_special_tokens=True).strip()
    assert said([answer]) == [(text, "stop" if ids[-1] in (258, 260) else "length")]
    assert isinstance(answer, Completion)
    assert (answer.prompt_tokens, answer.completion_tokens, answer.cost) == (prompt.shape[1], len(ids), 0.0)


def test_the_name_tells_weights_and_template_apart() -> None:
    names = {teacher().name, teacher(seed=1).name, teacher(template="paper").name}
    assert len(names) == 3
    assert teacher().name == teacher(batch_rows=2).name
    assert isinstance(teacher(), Teacher)


def test_a_stop_text_ends_the_answer_before_it() -> None:
    whole = request("hello", temperature=1.0, max_tokens=12)
    ((text, _),) = said(teacher().complete([whole]))
    drawn = LocalTeacher(tiny_model(), tokenizer=TOKENIZER, name="tiny")
    # Stop texts are part of a request, and with it of its noise: a greedy answer is the same with and without.
    greedy = replace(whole, temperature=0.0)
    ((full, _),) = said(drawn.complete([greedy]))
    assert text
    assert len(full) > 2
    (cut,) = drawn.complete([replace(greedy, stop=(full[2],))])
    at = full.index(full[2])
    if full[:at].strip():
        assert said([cut]) == [(full[:at].rstrip(), "stop")]
    else:
        assert said([cut]) == [("", "empty")]


def test_prompts_that_fill_the_context_and_answers_that_reach_its_end() -> None:
    context = 256
    (refused, kept) = teacher().complete([request("x" * context), request("x" * (context - 20), max_tokens=400)])
    assert isinstance(refused, Refusal)
    assert (refused.reason, "256" in refused.message) == ("context", True)
    tokens = len(TOKENIZER.encode("<bos><turn>u:" + "x" * (context - 20) + "<end><turn>a:"))
    if isinstance(kept, Completion):
        assert kept.completion_tokens <= context - tokens


def test_scores_are_the_models_log_probabilities() -> None:
    model = tiny_model()
    local = LocalTeacher(model, tokenizer=TOKENIZER)
    turns = (Turn(role="user", content="2+2?"),)
    scored = local.score(turns, "4.")
    prompt = TOKENIZER.encode("<bos><turn>u:2+2?<end><turn>a:")
    answer = [*TOKENIZER.encode("4."), 260]
    assert scored.tokens == tuple(answer)
    with torch.no_grad():
        logits = model(torch.tensor([prompt + answer])).logits[0, :, :261].double()
    expected = torch.log_softmax(logits, dim=-1)[len(prompt) - 1 : -1].gather(1, torch.tensor(answer)[:, None])
    assert scored.logp == pytest.approx(expected.squeeze(1).tolist(), abs=1e-4)
    assert scored.mean == pytest.approx(float(expected.mean()), abs=1e-4)


def test_scores_do_not_depend_on_batch_mates() -> None:
    pairs = [((Turn(role="user", content="a" * i),), "b" * (9 - i)) for i in range(1, 8)]
    together, alone = teacher(batch_rows=3).score_all(pairs), [teacher().score(*each) for each in pairs]
    assert [each.tokens for each in together] == [each.tokens for each in alone]
    for one, other in zip(together, alone, strict=True):
        assert one.logp == pytest.approx(other.logp, abs=1e-4)


def test_what_does_not_fit_is_not_scored_in_part() -> None:
    with pytest.raises(DataError, match="longer than the model's context of 256"):
        teacher().score((Turn(role="user", content="x"),), "y" * 300)
    with pytest.raises(DataError, match="longer than the model's context of 256"):
        teacher().score((Turn(role="user", content="x" * 300),), "y")
    with pytest.raises(ConfigError, match="batch_rows is 0"):
        teacher(batch_rows=0)


def test_a_folder_is_loaded_and_its_answers_fit_the_ledger(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "teacher", seed=3)
    local = LocalTeacher.load(str(folder), device="cpu")
    assert local.name.startswith(f"local {folder} ")
    asked = request("2+2?", max_tokens=4)
    (answer,) = local.complete([asked])
    with Ledger.open(tmp_path / "calls.sqlite") as ledger:
        ledger.record(local.name, asked, answer, stage="solve")
        assert ledger.answer(local.name, asked) == answer
        assert ledger.answer(teacher().name, asked) is None


def test_a_recipes_budget_holds_inside_a_stage(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "teacher", seed=3)
    writer = writer_of({"kind": "local", "model": str(folder), "device": "cpu", "max_tokens": 4})
    items = [Item(id=str(number), question=f"{number}+1?", gold="1", kind="numeric") for number in range(6)]
    with Ledger.open(tmp_path / "calls.sqlite") as ledger:
        local = writer.build(Desk(ledger=ledger, stage="s", budget=Budget(calls=2), seed=0))
        with pytest.raises(Stopped, match="2 calls of 2"):
            local.write([Assignment(item=item) for item in items])
        assert ledger.spent().calls == 2
