from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

import limbeck
from limbeck.cli import main
from limbeck.errors import ConfigError
from limbeck.evaluation import Decoding
from limbeck.inspection import chat, open_talk
from limbeck.inspection.talk import beside
from limbeck.testing import save_tiny, save_toy

_GREEDY = Decoding(temperature=0.0, max_new_tokens=6)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("talk")
    recipe = {
        "method": {"base": "kd"},
        "models": {
            "teacher": str(save_tiny(folder / "teacher", seed=1, layers=3)),
            "student": str(save_tiny(folder / "student", seed=2)),
            "device": "cpu",
        },
        "data": {"corpus": str(save_toy(folder / "toy.jsonl", 8)), "max_prompt": 48, "max_length": 64},
        "train": {"steps": 1, "batch_rows": 2},
        "validate": {"every": None},
        "run": str(folder / "run"),
    }
    return limbeck.train(recipe).directory


def _talked(run: Path, *lines: str, side_by_side: bool = False, seed: int = 0, **decoding: float) -> list[str]:
    said: list[str] = []
    given = iter(lines)

    def read() -> str:
        try:
            return next(given)
        except StopIteration:
            raise EOFError from None

    settings = Decoding(**{"max_new_tokens": 6, **decoding})  # type: ignore[arg-type]
    talk = open_talk(run, side_by_side=side_by_side, decoding=settings, seed=seed, device="cpu")
    chat(talk, read=read, write=said.append, width=80)
    return said


def test_an_answer_is_what_generate_gives(run: Path) -> None:
    talk = open_talk(run, decoding=_GREEDY, device="cpu")
    (answer,) = talk.turn("hello", number=0)
    tokenizer = AutoTokenizer.from_pretrained(run / "student")
    model = AutoModelForCausalLM.from_pretrained(run / "student")
    turns = [{"role": "user", "content": "hello"}]
    prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    out = model.generate(**prompt, do_sample=False, max_new_tokens=6)[0, prompt["input_ids"].shape[1] :]
    assert answer == tokenizer.decode(out, skip_special_tokens=True).strip()


def test_what_was_said_is_part_of_the_next_prompt(run: Path) -> None:
    talk = open_talk(run, decoding=_GREEDY, device="cpu")
    first = talk.turn("one", number=0)[0]
    talk.turn("two", number=1)
    history = talk.speakers[0].history
    assert [message.role for message in history] == ["user", "assistant", "user", "assistant"]
    assert [message.content for message in history[:3]] == ["one", first, "two"]
    talk.restart("be brief")
    assert [(message.role, message.content) for message in talk.speakers[0].history] == [("system", "be brief")]


def test_the_same_seed_says_the_same(run: Path) -> None:
    lines = ("hello", "and then?")
    assert _talked(run, *lines, seed=3) == _talked(run, *lines, seed=3)
    assert _talked(run, *lines, seed=3) != _talked(run, *lines, seed=4)


def test_the_teacher_beside_it(run: Path) -> None:
    ((both),) = _talked(run, "hello", side_by_side=True, temperature=0.0)
    head, *_ = both.splitlines()
    assert head.split() == ["student", "teacher"]
    talk = open_talk(run, side_by_side=True, decoding=_GREEDY, device="cpu")
    student, teacher = talk.turn("hello", number=0)
    alone = open_talk(run.parent / "teacher", decoding=_GREEDY, device="cpu").turn("hello", number=0)
    assert teacher == alone[0]
    assert student == open_talk(run, decoding=_GREEDY, device="cpu").turn("hello", number=0)[0]


def test_commands(run: Path) -> None:
    said = _talked(run, "", "/new", "/system be brief", "/nonsense", "hello", "/quit", "never read")
    assert said[:2] == ["a new conversation", "a new conversation"]
    assert said[2].startswith("/new:")
    assert len(said) == 4


def test_ctrl_c_drops_an_answer_and_ends_at_the_prompt(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    talk = open_talk(run, side_by_side=True, decoding=_GREEDY, device="cpu")
    last = type(talk.speakers[1].answerer)
    whole, calls = last.answers, iter((False, True, False, False))

    def interrupted(self, *args, **kwargs):
        if next(calls):
            raise KeyboardInterrupt
        return whole(self, *args, **kwargs)

    monkeypatch.setattr(last, "answers", interrupted)
    said: list[str] = []
    lines = iter(["hello", "again", KeyboardInterrupt()])

    def read() -> str:
        line = next(lines)
        if isinstance(line, str):
            return line
        raise line

    # The student had answered already when the teacher was interrupted; neither remembers it.
    assert chat(talk, read=read, write=said.append) == 1
    assert said[0] == "dropped"
    assert [len(speaker.history) for speaker in talk.speakers] == [2, 2]


def test_a_long_talk_is_cut_to_the_context(run: Path) -> None:
    said = _talked(run, *(f"{n} " + "x" * 60 for n in range(5)))
    assert len(said) == 5
    assert not any(line.startswith("error") for line in said)


def test_without_a_teacher(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--teacher"):
        open_talk(run / "student", side_by_side=True, device="cpu")
    (tmp_path / "recipe.yaml").touch()
    with pytest.raises(ConfigError, match="no student yet"):
        open_talk(tmp_path, device="cpu")


def test_beside_and_below() -> None:
    assert beside(["a b", "c"], ["student", "teacher"], width=40) == "student:\na b\nteacher:\nc"
    lines = beside(["word " * 40, "c\nd"], ["student", "teacher"], width=80).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[2].endswith("d")
    assert "\x1b" not in beside(["\x1b[31mred"], [""], width=80)


def test_the_verb_with_a_pipe(run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\n/new\nhello\n"))
    assert main(["chat", str(run), "--temperature", "0", "--max-new-tokens", "6", "--device", "cpu"]) == 0
    first, new, again = capsys.readouterr().out.splitlines()
    assert new == "a new conversation"
    assert first == again
    assert main(["chat", str(run / "nothing"), "--device", "cpu"]) == 2
    assert main(["chat", str(run), "--temperature", "-1"]) == 2


def test_a_process_that_reads_a_pipe_ends_cleanly(run: Path) -> None:
    command = [sys.executable, "-m", "limbeck", "chat", str(run), "--max-new-tokens", "3", "--device", "cpu"]
    done = subprocess.run(command, input="hello\n", capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr
