"""`evaluate` on tiny model folders: rows, files, tables, and what bad input gets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import limbeck
from limbeck.errors import CheckpointError, ConfigError, DataError, ModelError, UnknownName, VocabularyMismatch
from limbeck.evaluation import Decoding, Results, evaluate, rouge_l
from limbeck.evaluation.exposure import exposure_bias
from limbeck.evaluation.scorers import self_bleu, standard_scorers
from limbeck.evaluation.subjects import load_subject
from limbeck.files import alone_in
from limbeck.models.decoders import CausalDecoder
from limbeck.testing import byte_tokenizer, save_tiny, save_toy, tiny_model, toy_examples
from limbeck.training.rundir import Run

SHORT = Decoding(max_new_tokens=6)
COUNT = 5
VOCABULARY = 261


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    save_tiny(folder / "student")
    save_tiny(folder / "teacher", seed=1, layers=3, vocab_size=272)
    save_toy(folder / "toy.jsonl", COUNT)
    save_toy(folder / "more.jsonl", 3, seed=1)
    return folder


@pytest.fixture(scope="module")
def results(home: Path) -> Results:
    return run(home, teacher=str(home / "teacher"), seeds=(10, 20))


def run(home: Path, *, model=None, corpora="toy.jsonl", **options) -> Results:
    files = [corpora] if isinstance(corpora, str) else corpora
    paths = [str(home / name) for name in files]
    settings = {"decoding": SHORT, "seeds": (10,), "max_prompt": 60, **options}
    return evaluate(model or home / "student", paths if len(paths) > 1 else paths[0], **settings)


def by_measure(results: Results, measure: str) -> list[dict]:
    return [row for row in results.rows if row["measure"] == measure]


# The numbers.


def gaps_by_hand(home: Path, *, prompt: str, response: list[int]) -> dict[str, float]:
    """Means over the response's tokens, from plain transformers and a loop."""
    models = [AutoModelForCausalLM.from_pretrained(home / name).eval() for name in ("teacher", "student")]
    ids = AutoTokenizer.from_pretrained(home / "student")(prompt, add_special_tokens=False)["input_ids"]
    sums = {"kl_teacher_student": 0.0, "kl_student_teacher": 0.0, "cross_entropy": 0.0}
    for place, token in enumerate(response):
        with torch.no_grad():
            before = torch.tensor([[*ids, *response[:place]]])
            t, s = (model(before).logits[0, -1, :VOCABULARY].double().log_softmax(-1) for model in models)
        sums["kl_teacher_student"] += float((t.exp() * (t - s)).sum())
        sums["kl_student_teacher"] += float((s.exp() * (s - t)).sum())
        sums["cross_entropy"] -= float(s[token])
    return {name: value / len(response) for name, value in sums.items()}


def test_agreement_equals_a_loop_over_plain_transformers(home: Path, results: Results) -> None:
    example = toy_examples(COUNT)[1]
    prompt = f"<bos><turn>u:{example.messages[0].content}<end><turn>a:"
    reference = [*example.references[0].encode(), 260]
    (answer,) = [row for row in by_measure(results, "answers") if row["id"] == example.id and row["seed"] == 10]
    for measure, response in (("references", reference), ("own", answer["tokens"])):
        (row,) = [row for row in by_measure(results, measure) if row["id"] == example.id]
        assert row["num_tokens"] == len(response)
        expected = gaps_by_hand(home, prompt=prompt, response=response)
        found = {name: row["scores"][name] for name in expected}
        assert found == pytest.approx(expected, rel=2e-4, abs=2e-5)


def test_there_is_a_row_for_each_seed_and_example_and_one_for_each_comparison(results: Results) -> None:
    ids = [example.id for example in toy_examples(COUNT)]
    answers = by_measure(results, "answers")
    assert [(row["seed"], row["id"]) for row in answers] == [(seed, id) for seed in (10, 20) for id in ids]
    assert [row["id"] for row in by_measure(results, "references")] == ids
    assert [(row["seed"], row["id"]) for row in by_measure(results, "own")] == [(10, id) for id in ids]
    assert [row["id"] for row in by_measure(results, "across")] == ids
    assert len(results.rows) == 5 * COUNT
    for row in answers:
        assert row["scores"]["rouge_l"] == rouge_l(row["text"], row["references"])
        assert set(row["scores"]) == set(standard_scorers())
        assert row["scores"]["stopped"] == float(row["stopped"])


def test_the_mean_is_taken_over_seeds_then_examples_then_corpora(home: Path) -> None:
    results = run(home, corpora=["toy.jsonl", "more.jsonl"], seeds=(10, 20))
    entropies = by_measure(results, "references")
    means = []
    for corpus in (str(home / "toy.jsonl"), str(home / "more.jsonl")):
        own = [row["scores"]["cross_entropy"] for row in entropies if row["corpus"] == corpus]
        means.append(sum(own) / len(own))
    assert results.mean("cross_entropy", measure="references") == pytest.approx(sum(means) / 2)
    answers = by_measure(results, "answers")
    assert results.values("answers", "rouge_l")[str(home / "more.jsonl")]["toy-0"] == pytest.approx(
        sum(row["scores"]["rouge_l"] for row in answers if row["id"] == "toy-0" and "more" in row["corpus"]) / 2
    )
    assert 0.0 <= results.mean() <= 1.0


def test_the_table_has_a_row_a_corpus_with_intervals(home: Path, results: Results) -> None:
    assert [column.title for column in results.table().columns] == [
        "corpus",
        "n",
        "ROUGE-L",
        "KL(t‖s) on references",
        "KL(s‖t) on own answers",
        "top-1 agreement %",
        "1 − TVD %",
        "cross-entropy",
    ]
    text = results.table().text()
    assert "toy.jsonl" in text.replace("\n", "")
    assert max(map(len, text.splitlines())) <= 80
    shown = f"{results.mean('kl_teacher_student', measure='references'):.3f} ["
    assert shown in results.table().markdown()


def test_without_a_teacher_there_are_answers_and_cross_entropy(home: Path) -> None:
    results = run(home)
    titles = [column.title for column in results.table().columns]
    assert titles == ["corpus", "n", "ROUGE-L", "cross-entropy"]
    with pytest.raises(DataError, match="give a teacher"):
        results.mean("kl_teacher_student", measure="references")


# What is evaluated.


def test_a_mean_of_another_measure_is_named(results: Results) -> None:
    with pytest.raises(DataError, match=r"under 'answers'; take measure='own' or 'references'$"):
        results.mean("kl_teacher_student")


def test_a_run_stands_for_its_best_student(home: Path, tmp_path: Path) -> None:
    save_tiny(tmp_path / "run" / "student")
    expected = [row["tokens"] for row in by_measure(run(home), "answers")]
    for model in (tmp_path / "run", str(tmp_path / "run"), Run(tmp_path / "run")):
        assert [row["tokens"] for row in by_measure(run(home, model=model), "answers")] == expected


def test_a_loaded_model_answers_like_its_folder_and_stays_as_it_was(home: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(home / "student", attention_dropout=0.25).train()
    expected = [row["tokens"] for row in by_measure(run(home), "answers")]
    assert [row["tokens"] for row in by_measure(run(home, model=model), "answers")] == expected
    assert all(part.training for part in model.modules())
    assert model.model.layers[0].self_attn.attention_dropout == 0.25
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_public_name_is_the_same_function() -> None:
    assert limbeck.evaluate is evaluate


def test_rows_limits_named_corpora_and_the_device_are_passed_on(home: Path, tmp_path: Path) -> None:
    results = run(home, model=home / "student", max_rows=2, device="cpu")
    assert {row["id"] for row in results.rows} < {f"toy-{i}" for i in range(COUNT)}
    assert len(by_measure(results, "answers")) == 2
    save_toy(tmp_path / "test.jsonl", 2)
    (tmp_path / "self_instruct").mkdir()
    (tmp_path / "test.jsonl").rename(tmp_path / "self_instruct" / "test.jsonl")
    named = evaluate(
        home / "student", ["self-instruct"], root=tmp_path, decoding=SHORT, seeds=(1,), max_prompt=60, device="cpu"
    )
    assert {row["corpus"] for row in named.rows} == {"self-instruct"}


def test_long_prompts_are_cut_and_answered(home: Path, tmp_path: Path) -> None:
    row = {"id": "long", "instruction": "word " * 60, "input": "", "output": "Yes"}
    (tmp_path / "long.jsonl").write_text(json.dumps(row) + "\n")
    results = evaluate(home / "student", str(tmp_path / "long.jsonl"), decoding=SHORT, seeds=(10,), max_prompt=60)
    assert by_measure(results, "references")[0]["num_tokens"] == len("Yes") + 1
    assert len(by_measure(results, "answers")) == 1
    assert "∞" in results.table().text()  # one example has no spread


# The folder.


def test_rows_are_on_disk_and_a_second_call_draws_nothing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"teacher": str(home / "teacher"), "seeds": (10, 20), "out": tmp_path / "out"}
    first = run(home, **options)
    assert first.folder == tmp_path / "out"
    lines = {}
    for path in (tmp_path / "out").iterdir():
        lines[path.name] = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
    assert sorted(map(len, lines.values())) == [COUNT, COUNT, COUNT, COUNT + 1, COUNT + 1]
    header, *rows = next(rows for name, rows in lines.items() if name.endswith("answers-seed20.jsonl"))
    assert header["decoding"] == {
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "no_repeat_ngram": 0,
        "max_new_tokens": 6,
    }
    on_disk = {row["id"]: row for row in rows}
    drawn = {row["id"]: row for row in by_measure(first, "answers") if row["seed"] == 20}
    assert {id: {**row, "measure": "answers"} for id, row in on_disk.items()} == drawn
    monkeypatch.setattr(CausalDecoder, "next_logp", None)
    assert run(home, **options).rows == first.rows


def test_another_seed_goes_beside_and_another_decoding_is_refused(home: Path, tmp_path: Path) -> None:
    run(home, out=tmp_path)
    run(home, out=tmp_path, seeds=(10, 20))
    assert len(list(tmp_path.glob("*answers*"))) == 2
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(CheckpointError, match="drawn otherwise"):
        run(home, out=tmp_path, decoding=Decoding(max_new_tokens=7))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_student_that_was_trained_on_is_not_given_its_old_answers(home: Path, tmp_path: Path) -> None:
    save_tiny(tmp_path / "student")
    run(home, model=tmp_path / "student", out=tmp_path / "out")
    save_tiny(tmp_path / "student", seed=5)
    with pytest.raises(CheckpointError, match="drawn otherwise"):
        run(home, model=tmp_path / "student", out=tmp_path / "out")


@pytest.mark.parametrize("changed", ["template", "end tokens"])
def test_a_student_that_is_asked_or_ends_otherwise_is_not_given_its_old_answers(
    home: Path, tmp_path: Path, changed: str
) -> None:
    student = save_tiny(tmp_path / "student")
    run(home, model=student, out=tmp_path / "out")
    if changed == "template":
        path = student / "chat_template.jinja"
        path.write_text(path.read_text().replace("<turn>a:", "<turn>A:"))
    else:
        path = student / "generation_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": [258, 10]}))
    with pytest.raises(CheckpointError, match="drawn otherwise"):
        run(home, model=student, out=tmp_path / "out")


def test_answers_of_a_version_that_did_not_say_what_ends_them_are_gone_on_with(home: Path, tmp_path: Path) -> None:
    first = run(home, out=tmp_path)
    (path,) = tmp_path.glob("*answers*")
    header, *rows = path.read_text(encoding="utf-8").split("\n")
    earlier = {key: value for key, value in json.loads(header).items() if key not in ("stop_ids", "prompts")}
    path.write_text("\n".join([json.dumps(earlier), *rows]), encoding="utf-8")
    assert run(home, out=tmp_path).rows == first.rows


def test_the_token_that_ends_an_answer_is_no_word_of_it(home: Path, tmp_path: Path) -> None:
    student = save_tiny(tmp_path / "student")
    path, letters = student / "generation_config.json", list(range(ord("0"), ord("z")))
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": [258, *letters]}))
    tokenizer = AutoTokenizer.from_pretrained(student)
    ended = [row for row in by_measure(run(home, model=student), "answers") if row["tokens"][-1] in letters]
    assert len(ended) > 1
    for row in ended:
        assert row["stopped"]
        assert row["text"] == tokenizer.decode(row["tokens"][:-1], skip_special_tokens=True).strip()


def test_prompts_that_are_cut_are_counted_below_the_table(home: Path) -> None:
    encoder = load_subject(str(home / "student"), teacher=None, max_prompt=60, new_tokens=6).encoder
    lengths = [len(encoder.prompt(example)) for example in toy_examples(COUNT)]
    room = max(lengths) - 1
    note = f"{lengths.count(max(lengths))} of {COUNT} prompts are longer than {room} tokens, and were cut"
    (told,) = run(home, max_prompt=room).table().notes
    assert note in told
    assert run(home, max_prompt=room + 1).notes == ()


# Bad input.


def test_an_unknown_decoding_is_refused_with_a_suggestion(home: Path) -> None:
    with pytest.raises(UnknownName, match="Did you mean 'plain'"):
        run(home, decoding="plane")


@pytest.mark.parametrize("options", [{"seeds": ()}, {"corpora": []}])
def test_nothing_to_evaluate_is_refused(home: Path, options: dict) -> None:
    settings = {"corpora": [str(home / "toy.jsonl")], "seeds": (10,), **options}
    with pytest.raises(ConfigError, match="at least one corpus and one seed"):
        evaluate(home / "student", decoding=SHORT, **settings)


def test_prompts_and_answers_that_do_not_fit_the_context_are_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"200 tokens and answers of 60 .* the model's context of 256"):
        run(home, max_prompt=200, decoding=Decoding(max_new_tokens=60))
    short = tiny_model(vocab_size=264, seed=2, positions=64)
    short.save_pretrained(tmp_path / "short")
    byte_tokenizer().save_pretrained(tmp_path / "short")
    with pytest.raises(ConfigError, match="the teacher's context of 64"):
        run(home, teacher=str(tmp_path / "short"))


def test_what_cannot_be_loaded_is_refused_by_name(home: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nothing-here"):
        run(home, model=tmp_path / "nothing-here")
    with pytest.raises(DataError, match=r"missing\.jsonl"):
        run(home, corpora="missing.jsonl")
    with pytest.raises(ConfigError, match="no device is called"):
        run(home, device="abacus")
    with pytest.raises(ConfigError, match="dtype 'float16' is refused: its largest number"):
        run(home, dtype="float16")
    with pytest.raises(ConfigError, match="batch_rows is 0; at least 1"):
        run(home, batch_rows=0)


@pytest.mark.parametrize("teachers", [(), ("<other>", "<shared>")])
def test_a_teacher_without_the_token_that_ends_the_students_answers_is_refused_before_any_is_drawn(
    home: Path, tmp_path: Path, teachers: tuple[str, ...]
) -> None:
    tokenizer = byte_tokenizer(extra_tokens=("<fin>", "<shared>"))
    tokenizer.chat_template = str(tokenizer.chat_template).replace("<end>", "<fin>")
    save_tiny(tmp_path / "student", tokenizer=tokenizer)
    save_tiny(tmp_path / "teacher", seed=1, tokenizer=byte_tokenizer(extra_tokens=teachers))
    with pytest.raises(VocabularyMismatch, match=r"every response ends with '<fin>' \(id 261\), but the teacher"):
        run(home, model=tmp_path / "student", teacher=str(tmp_path / "teacher"), out=tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    assert run(home, model=tmp_path / "student").mean("cross_entropy", measure="references") < 100


def test_weights_of_another_precision_answer_otherwise_and_have_a_file_of_their_own(home: Path, tmp_path: Path) -> None:
    whole = run(home, teacher=str(home / "student"), out=tmp_path / "whole")
    half = run(home, teacher=str(home / "student"), out=tmp_path / "half", dtype="bfloat16")
    perplexities = [next(iter(each.perplexity().values())) for each in (whole, half)]
    assert perplexities[0] != perplexities[1] == pytest.approx(perplexities[0], rel=0.02)
    # The teacher has the same precision: the same weights agree with themselves.
    assert all(row["scores"]["kl_teacher_student"] == 0.0 for row in by_measure(half, "references"))
    with pytest.raises(CheckpointError, match="drawn otherwise"):
        run(home, teacher=str(home / "student"), out=tmp_path / "whole", dtype="bfloat16")


# Scores of a user's own, and tables.


def test_a_scorer_of_ones_own_is_one_function_and_kept_rows_get_it_too(home: Path, tmp_path: Path) -> None:
    first = run(home, out=tmp_path)
    again = run(home, out=tmp_path, scorers={"letters": lambda row: float(len(row.text))})
    for before, after in zip(by_measure(first, "answers"), by_measure(again, "answers"), strict=True):
        assert after["scores"] == {**before["scores"], "letters": float(len(before["text"]))}
    kept = [json.loads(line) for path in tmp_path.glob("*answers*") for line in path.read_text().splitlines()[1:]]
    assert all("letters" in row["scores"] for row in kept)
    assert "letters" in again.table(["letters", "rouge_2"]).text()
    assert by_measure(run(home, out=tmp_path), "answers") == by_measure(again, "answers")


def test_a_scorer_that_gives_no_number_is_an_error(home: Path) -> None:
    with pytest.raises(DataError, match="the scorer 'odd' gives nan for example"):
        run(home, scorers={"odd": lambda row: float("nan")})


def test_answers_to_one_prompt_are_compared_across_seeds(home: Path, results: Results, tmp_path: Path) -> None:
    texts = {}
    for row in by_measure(results, "answers"):
        texts.setdefault(row["id"], []).append(row["text"])
    across = by_measure(results, "across")
    assert {row["id"]: row["scores"]["self_bleu"] for row in across} == {
        id: pytest.approx(sum(self_bleu(said)) / 2) for id, said in texts.items()
    }
    run(home, out=tmp_path, seeds=(10, 20))
    assert len(next(tmp_path.glob("*across-seeds.jsonl")).read_text().splitlines()) == COUNT
    assert not by_measure(run(home), "across")


def test_tables_by_score_and_category(results: Results) -> None:
    assert "ROUGE-2" in results.table(["rouge_2", "self_bleu"]).text()
    with pytest.raises(UnknownName, match=r"rouge_3.*Did you mean"):
        results.table(["rouge_3"])
    table = results.categories(against=results)
    assert sum(row.cells[2].value for row in table.rows) == COUNT
    assert {row.cells[4].value for row in table.rows} == {0.0}
    shorter = Results(rows=[row for row in results.rows if row["id"] != "toy-0"])
    with pytest.raises(DataError, match="same examples"):
        results.categories(against=shorter)


def test_the_largest_loss_comes_first() -> None:
    def found(scores: dict[str, float]) -> Results:
        return Results(
            rows=[
                {
                    "measure": "answers",
                    "corpus": "c",
                    "seed": 1,
                    "id": id,
                    "category": id[0],
                    "scores": {"rouge_l": value},
                }
                for id, value in scores.items()
            ]
        )

    mine, teacher = (
        found({"a1": 0.5, "a2": 0.5, "b1": 0.1, "b2": 0.3}),
        found({"a1": 0.4, "a2": 0.4, "b1": 0.6, "b2": 0.6}),
    )
    rows = mine.categories(against=teacher).rows
    assert [(row.cells[1], row.cells[4].centre) for row in rows] == [("b", "-40.0"), ("a", "+10.0")]


def test_perplexity_weighs_tokens() -> None:
    rows = [
        {
            "measure": "references",
            "corpus": "c",
            "seed": 1,
            "id": "a",
            "num_tokens": 3,
            "scores": {"cross_entropy": 1.0},
        },
        {
            "measure": "references",
            "corpus": "c",
            "seed": 1,
            "id": "b",
            "num_tokens": 1,
            "scores": {"cross_entropy": 3.0},
        },
        {"measure": "references", "corpus": "c", "seed": 1, "id": "e", "num_tokens": 0, "scores": {}},
    ]
    assert Results(rows=rows).perplexity() == {"c": pytest.approx(2.718281828459045**1.5)}


# Exposure bias.


def test_exposure_bias_is_taken_on_both_models_answers(home: Path, tmp_path: Path) -> None:
    found = run(home, teacher=str(home / "teacher"), exposure=True, out=tmp_path)
    rows = by_measure(found, "exposure")
    ids = [example.id for example in toy_examples(COUNT)]
    assert [(row["prefix"], row["id"]) for row in rows] == [(who, id) for who in ("student", "teacher") for id in ids]
    corpus = str(home / "toy.jsonl")
    slug = corpus.replace("/", "_")
    example = toy_examples(COUNT)[2]
    prompt = f"<bos><turn>u:{example.messages[0].content}<end><turn>a:"
    said = {"student": by_measure(found, "answers")}
    lines = (tmp_path / f"{slug}-teacher-answers-seed10.jsonl").read_text().splitlines()
    said["teacher"] = [json.loads(line) for line in lines[1:]]
    # Whoever reads the folder's answers for their scores must not take these for the student's.
    assert not any(row["scores"] for row in said["teacher"])
    for who, answers in said.items():
        (answer,) = [row for row in answers if row["id"] == example.id]
        (row,) = [row for row in rows if (row["prefix"], row["id"]) == (who, example.id)]
        assert len(row["kl"]) == len(answer["tokens"])
        expected = gaps_by_hand(home, prompt=prompt, response=answer["tokens"])["kl_teacher_student"]
        assert sum(row["kl"]) / len(row["kl"]) == pytest.approx(expected, rel=2e-4, abs=2e-5)
    bias = found.exposure(length=3)[corpus]
    means = [
        (lambda kls: sum(kls) / len(kls))([kl for row in rows if row["prefix"] == who for kl in row["kl"][:3]])
        for who in ("student", "teacher")
    ]
    assert (bias.own, bias.teachers) == pytest.approx(tuple(means))
    assert bias.excess is not None
    assert bias.excess.mean == pytest.approx(100 * (means[0] - means[1]) / means[1])
    assert bias.excess.low <= bias.excess.mean <= bias.excess.high
    again = run(home, teacher=str(home / "teacher"), exposure=True, out=tmp_path)
    assert again.rows == found.rows


def test_exposure_bias_needs_a_teacher_and_is_undefined_without_distance(home: Path) -> None:
    with pytest.raises(ConfigError, match="name a teacher"):
        run(home, exposure=True)
    same = run(home, model=home / "teacher", teacher=str(home / "teacher"), exposure=True, max_rows=2)
    (bias,) = same.exposure().values()
    assert bias.excess is None
    assert run(home).exposure() == {}


def test_exposure_bias_refuses_half_pairs_and_nothing() -> None:
    own = {"id": "a", "prefix": "student", "kl": [0.1]}
    with pytest.raises(DataError, match="'a' has an answer of one model only"):
        exposure_bias([own])
    with pytest.raises(DataError, match="no token"):
        exposure_bias([{**own, "kl": []}, {**own, "prefix": "teacher"}])
    with pytest.raises(DataError, match="no token"):
        exposure_bias([])


# Calls that meet.


def test_a_second_evaluation_into_one_folder_is_refused_while_the_first_runs(home: Path, tmp_path: Path) -> None:
    with alone_in(tmp_path), pytest.raises(CheckpointError, match="another process is writing into"):
        run(home, out=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert len(by_measure(run(home, out=tmp_path), "answers")) == COUNT


def test_an_evaluation_without_the_teacher_keeps_what_the_teacher_said(home: Path, tmp_path: Path) -> None:
    run(home, out=tmp_path, teacher=str(home / "teacher"))
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    found = run(home, out=tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == kept
    assert all("kl_teacher_student" not in row["scores"] for row in found.rows)
    references = next(content for name, content in kept.items() if name.endswith("-references.jsonl"))
    assert b"kl_teacher_student" in references


def test_rows_of_another_teacher_or_of_fewer_scores_are_written_anew(home: Path, tmp_path: Path) -> None:
    run(home, out=tmp_path)
    poor = {path.name: path.read_bytes() for path in tmp_path.iterdir() if "references" in path.name}
    run(home, out=tmp_path, teacher=str(home / "teacher"))
    rich = {path.name: path.read_bytes() for path in tmp_path.iterdir() if "references" in path.name}
    assert poor.keys() == rich.keys()
    assert poor != rich


def test_paths_and_single_values_are_taken_as_they_are_meant(home: Path, tmp_path: Path) -> None:
    settings = {"decoding": SHORT, "max_prompt": 60}
    found = evaluate(home / "student", home / "toy.jsonl", seeds=10, out=str(tmp_path / "out"), **settings)
    assert len(by_measure(found, "answers")) == COUNT
    assert found.folder == tmp_path / "out"
