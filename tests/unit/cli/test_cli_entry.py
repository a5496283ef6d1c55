from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors import SafetensorError

import limbeck
from limbeck.cli import main
from limbeck.errors import CheckpointError, ConfigError, FailureSignature, NothingToLearn, Stopped

_VERBS = ("quickstart", "init", "explain", "doctor", "plan", "train", "evaluate", "report", "study", "compare", "chat",
          "export", "push", "shrink", "fetch", "cache", "undo")  # fmt: skip


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch):
    """Lets `limbeck train` end with this exception; returns the exit code."""

    def failing(error: BaseException, *arguments: str) -> int:
        def train(*given: Any, resume: bool, strict: bool) -> None:
            raise error

        monkeypatch.setitem(vars(limbeck), "train", train)
        return main(["train", "recipe.yaml", *arguments])

    return failing


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("wrong\n  do this"), 2),
        (CheckpointError("foreign"), 2),
        (NothingToLearn("nothing"), 2),
        (Stopped("stopped"), 75),
        (FailureSignature("a sick run"), 1),
        (OSError(errno.ENOSPC, "No space left on device", "runs/x"), 75),
        (RuntimeError("a bug\nsecond line"), 1),
    ],
)
def test_errors_become_messages_and_exit_codes(failing, capsys, error, code):
    assert failing(error) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert "Traceback" not in said.err


def test_a_broken_pipe_that_is_not_the_outputs_is_a_failure(failing, capsys):
    assert failing(BrokenPipeError(errno.EPIPE, "Broken pipe")) == 1
    assert "BrokenPipeError" in capsys.readouterr().err


def test_what_the_messages_say(failing, capsys):
    failing(ConfigError("wrong\n  do this"))
    assert capsys.readouterr().err == "error: wrong\n  do this\n"
    failing(OSError(errno.ENOSPC, "No space left on device", "runs/x"))
    assert "no space left on the disk for runs/x" in capsys.readouterr().err
    failing(OSError(errno.ENOSPC, "No space left on device", "from", None, "to"))
    assert "no space left on the disk for to" in capsys.readouterr().err
    assert failing(SafetensorError("I/O error: No space left on device (os error 28)")) == 75
    assert "no space left on the disk" in capsys.readouterr().err
    failing(RuntimeError("a bug\nsecond line"))
    assert capsys.readouterr().err == "error: RuntimeError: a bug\n  run again with --debug to see where\n"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "runs/x"), "runs/x cannot be used: Permission denied"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "a"), "a cannot be used: Is a directory"),
        (FileExistsError(errno.EEXIST, "File exists", ".draft", None, "a"), "a cannot be used: File exists"),
        (OSError(errno.EROFS, "Read-only file system", "b"), "b cannot be used: Read-only file system"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "c"), "c cannot be used: File name too long"),
    ],
)
def test_a_place_that_cannot_be_used_is_bad_input_and_is_named(failing, capsys, error, said):
    assert failing(error) == 2
    assert capsys.readouterr().err == f"error: {said}\n  name another place, or make it free\n"


def test_debug_shows_the_traceback(failing, capsys, monkeypatch):
    assert failing(ConfigError("wrong"), "--debug") == 2
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("LIMBECK_DEBUG", "1")
    assert failing(RuntimeError("a bug")) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_is_no_success(failing):
    assert failing(KeyboardInterrupt()) == 130


@pytest.mark.parametrize(
    ("inner", "given"),
    [
        ("limbeck.studies.first_run.gather_rows", ["quickstart", "--out", "folder"]),
        ("limbeck.evaluate", ["evaluate", "model", "--corpora", "dolly"]),
        ("limbeck.studies.injected.build_stage", ["study", "injected-errors", "--root", "data"]),
        ("limbeck.training.cache_building.build_cache", ["cache", "build", "recipe.yaml", "--out", "folder"]),
    ],
)
def test_an_interrupt_of_what_goes_on_by_itself_says_so(inner, given, capsys, monkeypatch, tmp_path):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(inner, interrupt)
    assert main(given) == 75
    assert (
        capsys.readouterr().err
        == "error: stopped; what was written is whole.\n  Give the same command again to go on\n"
    )


@pytest.mark.parametrize(("given", "code"), [(["--version"], 0), (["tarin"], 2)])
def test_one_of_several_processes_ends_without_waiting_for_threads(given, code, monkeypatch):
    ended = []
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("limbeck.training.world.leave", ended.append)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 1)
    assert main(given) == code
    assert ended == []
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    main(given)
    assert ended == [code]


def test_usage(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("limbeck ")
    assert main(["tarin"]) == 2
    assert "Did you mean 'train'?" in capsys.readouterr().err
    assert main(["train"]) == 2
    assert main(["train", "r.yaml", "--nonsense"]) == 2
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(verb in said for verb in _VERBS)


@pytest.mark.parametrize("verb", _VERBS)
def test_every_verb_has_help(verb, capsys):
    assert main([verb, "--help"]) == 0
    assert "Usage: limbeck" in capsys.readouterr().out


def test_python_dash_m():
    done = subprocess.run([sys.executable, "-m", "limbeck", "--version"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith("limbeck ")


def test_train_passes_its_arguments_on(monkeypatch, capsys):
    seen: list[Any] = []

    def train(recipe: Path, *overrides: str, resume: bool, strict: bool) -> SimpleNamespace:
        seen.append((recipe, overrides, resume, strict))
        return SimpleNamespace(directory=Path("runs/x"), best={"step": 3})

    monkeypatch.setitem(vars(limbeck), "train", train)
    assert main(["train", "r.yaml", "train.steps=3", "--resume", "--run", "a: b", "train.warmup=-1"]) == 0
    assert seen == [(Path("r.yaml"), ("train.steps=3", "train.warmup=-1", 'run="a: b"'), True, False)]
    assert main(["train", "r.yaml", "--strict"]) == 0
    assert seen[1] == (Path("r.yaml"), (), False, True)
    assert capsys.readouterr().out == 2 * "run: runs/x\nbest: step 3\n"


def test_evaluate_passes_its_arguments_on(monkeypatch, capsys, tmp_path):
    seen: list[Any] = []

    rest: list[dict[str, object]] = []

    def evaluate(model: object, corpora: object, *, decoding: str, seeds: object, out: Path, root: object,
                 teacher: object, max_rows: object, **others: object) -> SimpleNamespace:  # fmt: skip
        seen.append((model, corpora, decoding, seeds, out, root, teacher, max_rows))
        rest.append(others)
        table = SimpleNamespace(text=lambda *, width: f"a table {width > 0}")
        return SimpleNamespace(table=lambda scores=(): table, perplexity=lambda: {"a": 12.34}, exposure=dict)

    monkeypatch.setitem(vars(limbeck), "evaluate", evaluate)
    assert main(["evaluate", "owner/model", "--corpora", "a, b", "--seeds", "1,2", "--teacher", "t"]) == 0
    assert seen[-1] == (
        "owner/model",
        ["a", "b"],
        "plain",
        (1, 2),
        Path("evaluation/owner-model/plain"),
        None,
        "t",
        None,
    )
    assert "a table True\nperplexity of the references of a: 12.3" in capsys.readouterr().out
    assert main(["evaluate", "owner/model", "--corpora", "a", "--scores", "rouge_3"]) == 2
    assert "Did you mean" in capsys.readouterr().err
    (tmp_path / "recipe.yaml").touch()
    assert main(["evaluate", str(tmp_path), "--corpora", "a", "--decoding", "paper", "--max-rows", "3"]) == 0
    assert seen[-1] == (
        tmp_path, ["a"], "paper", (10, 20, 30, 40, 50), tmp_path / "answers" / "paper", None, None, 3
    )  # fmt: skip
    assert rest[0] == {
        "split": "test",
        "max_prompt": 256,
        "max_new_tokens": None,
        "exposure": False,
        "template": "auto",
        "device": "auto",
        "batch_rows": 16,
        "dtype": "auto",
    }
    lengths = ["--max-prompt", "64", "--max-new-tokens", "32", "--template", "paper", "--split", "valid"]
    speed = ["--batch-rows", "64", "--dtype", "bfloat16"]
    assert main(["evaluate", "m", "--corpora", "a", *lengths, *speed, "--device", "cpu"]) == 0
    assert rest[-1] == {
        "split": "valid",
        "max_prompt": 64,
        "max_new_tokens": 32,
        "exposure": False,
        "template": "paper",
        "device": "cpu",
        "batch_rows": 64,
        "dtype": "bfloat16",
    }
    for wrong in (
        ["--batch-rows", "0"],
        ["--seeds", "1,x"],
        ["--seeds", "1,1"],
        ["--corpora", ","],
        ["--max-rows", "0"],
    ):
        assert main(["evaluate", "m", "--corpora", "a", *wrong]) == 2


def test_bad_recipes_end_with_code_2(tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("method: {base: gdk}\nmodels: {student: s}\n")
    assert main(["train", str(tmp_path / "nothing.yaml")]) == 2
    assert main(["train", str(recipe)]) == 2
    said = capsys.readouterr().err
    assert "does not exist" in said
    assert "Did you mean 'gkd'?" in said
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]
