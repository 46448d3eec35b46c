"""Multiple choice: how it is asked, what is taught, which answers count, and that other questions are as they were."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_miniature import make
from PIL import Image

from vlmbench.config.checks import check_prompts
from vlmbench.config.faults import ConfigError
from vlmbench.config.schema import VqaTaskConfig
from vlmbench.domains.assemble import fingerprint
from vlmbench.domains.base import DomainError, Example
from vlmbench.domains.folder_images import FolderImages
from vlmbench.domains.questions import chosen, lettered
from vlmbench.domains.vqa_jsonl import build_vqa_jsonl
from vlmbench.metrics import vqa
from vlmbench.modules import prompting
from vlmbench.records.identity import relevant

OPTIONS = ("A. pneumothorax", "B. pleural effusion", "C. C. albicans", "D. cannot be determined")
TASK = VqaTaskConfig(name="vqa")


def example(**changes: Any) -> Example:
    fields: dict[str, Any] = {"question": "What is seen?", "answer": OPTIONS[1], "options": OPTIONS, "listed": True}
    return Example("1", "a.png", "p", "test", answer_type="closed", **(fields | changes))


def ask(some: Example, **changes: Any) -> prompting.Query:
    task = dataclasses.replace(TASK, **changes)
    (query,) = prompting.vqa(task.prompt_open, task.prompt_closed, task.prompt_choice)(some)
    return query


def score(predictions: list[str], **changes: Any) -> dict[str, Any]:
    n = len(predictions)
    options = changes.pop("options", OPTIONS)
    answers = changes.pop("answers", [OPTIONS[1]] * n)
    return vqa.evaluate(predictions, answers, ["closed"] * n, [options] * n, **changes)


# --- letters ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "listed"),
    [
        (["left", "right"], ("A. left", "B. right")),
        (["A:left ", " B: right"], ("A. left", "B. right")),
        (["(A) left", "(B) right"], ("A. left", "B. right")),
        (["a:left", "b: right"], ("A. left", "B. right")),
        (["upper\nleft", "right"], ("A. upper left", "B. right")),
        (["A. left", "B. right", "C) both"], ("A. left", "B. right", "C. both")),
        (["A. left", "right"], ("A. A. left", "B. right")),  # letters on some alone belong to the text
        (["C. albicans", "S. aureus"], ("A. C. albicans", "B. S. aureus")),
        (["B. right", "A. left"], ("A. B. right", "B. A. left")),
    ],
)
def test_options_are_listed_under_letters_in_their_order(raw: list[str], listed: tuple[str, ...]) -> None:
    assert lettered(raw, "here") == listed


@pytest.mark.parametrize("raw", [[], ["left"], ["left", ""], ["A:left", " B: "], ["x"] * 27])
def test_options_that_cannot_be_listed(raw: list[str]) -> None:
    with pytest.raises(DomainError, match="here: multiple choice needs 2 to 26 options, none of them empty"):
        lettered(raw, "here")


@pytest.mark.parametrize(
    "answer",
    ["B", "b.", "(B)", "Pleural effusion.", "B. pleural effusion", "B:pleural effusion", "(b) Pleural effusion"],
)
def test_a_reference_is_known_by_text_or_letter(answer: str) -> None:
    assert chosen(answer, OPTIONS, "here") == OPTIONS[1]


def test_a_reference_that_names_no_option_or_two() -> None:
    for answer in ("E", "effusion", "", "A. pleural effusion"):
        with pytest.raises(DomainError, match=r"here: the answer .* is not one of its options"):
            chosen(answer, OPTIONS, "here")
    twice = ("A. left", "B. Left.", "C. right")
    with pytest.raises(DomainError, match="here: the answer 'left' is several of its options"):
        chosen("left", twice, "here")
    assert chosen("B", twice, "here") == twice[1]
    assert chosen("A", ("A. B", "B. A"), "here") == "B. A"  # what an option says goes before what it is called


# --- asking and teaching ----------------------------------------------------------------------------------------


def test_the_options_are_asked_one_a_line_and_the_letter_is_taught() -> None:
    query = ask(example())
    assert query.prompt == "What is seen?\n" + "\n".join(OPTIONS) + "\nAnswer with the letter of the right option."
    assert query.answer == "B"
    assert query.options == ("A", "B", "C", "D")
    assert ask(example(), prompt_choice="{choices} // {question}").prompt.endswith("determined // What is seen?")


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("{question}", "lacks the placeholder {choices}"),
        ("{choices}", "lacks the placeholder {question}"),
        ("{question} {options}", "has the placeholder {options}; there are {question}, {choices}"),
        ("{question} {}", "has the placeholder {}; there are"),
        ("{question", "is no template (expected '}' before end of string)"),
        ("{question} {choices} {{letter}}", ""),
    ],
)
def test_a_template_that_cannot_be_filled_in_is_told(template: str, fault: str) -> None:
    task = dataclasses.replace(TASK, prompt_choice=template)
    if not fault:
        check_prompts(task)
        assert ask(example(), prompt_choice=template).prompt.endswith("{letter}")
        return
    with pytest.raises(ConfigError) as caught:
        check_prompts(task)
    assert f"task.prompt_choice={template!r} {fault}" in str(caught.value)


def test_closed_and_open_questions_are_asked_as_before() -> None:
    closed = example(answer="yes", options=("yes", "no"), listed=False)
    assert ask(closed, prompt_closed="{question} ({options})") == prompting.Query(
        "What is seen? (yes or no)", "yes", ("yes", "no")
    )
    assert ask(closed).prompt == "What is seen?"
    assert ask(example(answer="gas", options=(), listed=False)) == prompting.Query("What is seen?", "gas")


def test_what_is_supervised_is_the_letter(tmp_path: Path) -> None:
    import torch

    from vlmbench.catalogue.read import model_files, named
    from vlmbench.cell.build import build_backbone
    from vlmbench.modules.generative import GenerativeModule

    backbone = build_backbone(
        named("tiny_llava", model_files()), precision="32-true", trains_all=False, lock=str(tmp_path / "lock.json")
    )
    asker = prompting.vqa(TASK.prompt_open, TASK.prompt_closed, TASK.prompt_choice)
    module = GenerativeModule(backbone, asker, mode="vqa")
    pixels = backbone.preprocess(Image.new("RGB", (64, 64)))
    for option in OPTIONS:
        batch = module.collate([(0, example(answer=option), pixels)])
        *letter, end = batch["labels"][batch["labels"] != -100].tolist()
        assert backbone.tokenizer.decode(letter).strip() == option[0]
        assert end == backbone.tokenizer.eos_token_id
    with torch.no_grad():
        (answered,) = module.answer([(0, example(), pixels)])
    assert len(answered["option_scores"]) == 4


# --- counting ---------------------------------------------------------------------------------------------------

RIGHT = (
    *("B", "b", "B.", "(B)", "B)", "B. pleural effusion", "(b) pleural effusion", "Pleural effusion.", "option B"),
    *("The answer is B.", "B: pleural effusion", "It shows a pleural effusion.", "Answer: B"),
)
WRONG = ("A", "C", "(d)", "pneumothorax", "A. pneumothorax", "C. albicans", "D. cannot be determined")
NEITHER = (
    "",
    "E",
    "A or B",
    "A B",
    "A\nB",
    "B. pneumothorax",
    "not B",
    "I do not know",
    "A. pneumothorax and B. pleural effusion",
)


@pytest.mark.parametrize("text", RIGHT)
def test_the_letter_and_the_option_count(text: str) -> None:
    values = score([text])
    assert (values["closed_accuracy"][0], values["closed_unparsed"][0]) == (1, 0)


@pytest.mark.parametrize("text", WRONG)
def test_another_letter_or_option_is_a_wrong_answer(text: str) -> None:
    values = score([text])
    assert (values["closed_accuracy"][0], values["closed_unparsed"][0]) == (0, 0)


@pytest.mark.parametrize("text", NEITHER)
def test_what_commits_to_no_option_is_wrong_and_told(text: str) -> None:
    values = score([text])
    assert (values["closed_accuracy"][0], values["closed_unparsed"][0]) == (0, 1)


def test_two_options_that_say_the_same_are_told_apart_by_letter() -> None:
    options = ("A. left", "B. left", "C. right")
    values = score(["A", "B"], options=options, answers=["B. left"] * 2)
    assert values["closed_accuracy"].tolist() == [0, 1]


def test_likelihoods_of_the_letters_belong_to_the_options() -> None:
    scores = [[-3.0, -1.0, -2.0, -9.0], [-1.0, -3.0, -2.0, -9.0], [-1.0, -1.0, -2.0, -9.0]]
    values = score(["B"] * 3, option_scores=scores)
    assert values["closed_accuracy_likelihood"].tolist() == [1, 0, 0]


def test_the_blind_baseline_of_multiple_choice_is_the_most_frequent_letter() -> None:
    options = [tuple(f"{letter}. {word}{n}" for letter, word in zip("ABC", "xyz", strict=True)) for n in range(5)]
    answers = [option[i] for option, i in zip(options, (0, 1, 1, 2, 1), strict=True)]
    values = vqa.evaluate([""] * 5, answers, ["closed"] * 5, options)
    assert values["closed_majority"].tolist() == [0, 1, 1, 0, 1]


# --- a user's own lines -----------------------------------------------------------------------------------------


def write(root: Path, *lines: dict[str, Any]) -> None:
    (root / "images").mkdir(exist_ok=True)
    told = []
    for n, split in enumerate(["train", "val", "test"] * 2):
        Image.fromarray(np.full((8, 8), n, np.uint8)).save(root / "images" / f"{n}.png")
        line = lines[n % len(lines)]
        told.append({"id": n, "image": f"images/{n}.png", "split": split, "question": "Which side?", **line})
    (root / "qa.jsonl").write_text("".join(json.dumps(line) + "\n" for line in told))


def test_a_users_line_may_say_that_it_is_multiple_choice(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"answer_type": "Choice", "options": ["left", "right"], "answer": "B"},
        {"answer_type": "closed", "options": ["left", "right"], "answer": "right"},
    )
    first, second, *_ = build_vqa_jsonl("own", str(tmp_path), "ct").examples
    assert (first.answer_type, first.options, first.answer, first.listed) == (
        "closed",
        ("A. left", "B. right"),
        "B. right",
        True,
    )
    assert (second.options, second.answer, second.listed) == (("left", "right"), "right", False)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ({"answer": "left"}, "line 1: multiple choice needs 2 to 26 options"),
        ({"answer": "up", "options": ["left", "right"]}, "line 1: the answer 'up' is not one of its options"),
    ],
)
def test_a_users_multiple_choice_without_options_or_answer(tmp_path: Path, line: dict[str, Any], expected: str) -> None:
    write(tmp_path, {"answer_type": "choice", **line})
    with pytest.raises(DomainError, match=expected):
        build_vqa_jsonl("own", str(tmp_path), "ct")


# --- what was there before --------------------------------------------------------------------------------------


def test_older_cells_keep_their_names(tmp_path: Path) -> None:
    config = {"task": dataclasses.asdict(TASK)}
    assert "prompt_choice" not in relevant(config)["task"]
    assert "prompt_choice" in relevant({"task": {**config["task"], "prompt_choice": "{question}"}})["task"]
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    old = example(answer="yes", options=("yes", "no"), listed=False)
    size = (tmp_path / "a.png").stat().st_size
    digest = hashlib.sha256(b"")
    fields = ["1", "a.png", "p", "test", [], "What is seen?", "yes", "closed", ["yes", "no"], "", {}]
    for part in ([], fields, ["a.png", size]):
        digest.update(json.dumps(part).encode())
    images = FolderImages(tmp_path)
    assert fingerprint(None, images, [old]) == digest.hexdigest()
    assert fingerprint(None, images, [dataclasses.replace(old, listed=True)]) != digest.hexdigest()


# --- from end to end --------------------------------------------------------------------------------------------


def test_a_cell_on_multiple_choice(train: Any, tmp_path: Path) -> None:
    make("pmc_vqa", tmp_path / "pmc_vqa", seed=4)
    ran = train(
        *("model=tiny_llava", "finetune=lora", "task=vqa", "domain=pmc_vqa", f"domain.root={tmp_path / 'pmc_vqa'}"),
        *("domain.split=study", "trainer.max_epochs=1", "trainer.batch_size=8", "task.resamples=100"),
        small=False,
    )
    assert ran.status == 0, ran.err
    frame = ran.predictions
    assert set(frame["answer_type"]) == {"closed"}
    assert {len(row) for row in (*frame["option_scores"], *frame["options"])} == {4}
    metrics = ran.record["metrics"]
    assert 0 <= metrics["closed_accuracy"]["value"] <= 1
    assert 0 < metrics["closed_majority"]["value"] < 1
    assert metrics["closed_accuracy_likelihood"]["value"] is not None
    assert ran.record["n"]["examples"] == 18
