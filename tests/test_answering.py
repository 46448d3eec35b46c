"""Prompts are read once: for an image's questions, for an answer and its options; what has ended costs nothing."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from released import backbone_of, turns_of
from test_releases_generative import KINDS

from vlmbench.backbones.base import Turn
from vlmbench.backbones.generative.inputs import shared_beginnings
from vlmbench.backbones.generative.native import IGNORE
from vlmbench.backbones.loaders import load
from vlmbench.domains.datamodule import DomainDataModule
from vlmbench.domains.phantom.build import build_phantom
from vlmbench.modules.generative import GenerativeModule
from vlmbench.modules.prompting import vqa
from vlmbench.weights.source import ASSETS

ASK = vqa("{question}", "{question}", "{choices}")


@pytest.fixture(scope="module")
def llava():
    return load("hf_vlm", str(ASSETS / "tiny_llava"), dtype=torch.float32, answer_prefix=" ").eval()


def by_rows(backbone, turn, option):
    """Return the log-likelihood of an answer as training has it: one row, prompt and answer, read as a whole."""
    batch = backbone.collate([replace(turn, answer=option)], supervise=True)
    with torch.no_grad():
        loss, _ = backbone.forward(batch)
    return -loss * (batch["labels"] != IGNORE).sum()


@pytest.mark.parametrize("name", KINDS)
def test_questions_about_one_image_are_answered_and_scored_as_each_alone(name):
    backbone = backbone_of(name).eval()
    images = [replace(turn, image=turn.prompt) for turn in turns_of(backbone, answered=False)[:2]]
    asked = [replace(turn, prompt=prompt) for prompt in ("is it large?", "where?", "a") for turn in images][:-1]
    batch = backbone.collate(asked, supervise=False)
    # Gemma 3 attends over a window of places, which its tiny release has shorter than a prompt.
    assert ("rest_ids" in batch, len(batch["input_ids"])) == ((False, 5) if name == "gemma3" else (True, 2))
    options = [("yes", "no, and it is small"), ("left",), (), ("b", "a", "c"), ("yes", "no")]
    texts, scores = backbone.answer(asked, options, max_new_tokens=6)
    assert texts == [
        backbone.generate(backbone.collate([turn], supervise=False), max_new_tokens=6)[0] for turn in asked
    ]
    for turn, row, choices in zip(asked, scores, options, strict=True):
        assert torch.isinf(row[len(choices) :]).all()
        for value, option in zip(row, choices, strict=False):
            torch.testing.assert_close(value, by_rows(backbone, turn, option), rtol=1e-5, atol=5e-5)


def test_beginnings_are_shared_by_rows_of_one_image_that_begin_alike():
    rows = [[1, 9, 9, 4, 5], [1, 9, 9, 4, 6, 7], [2, 9, 9, 4, 5], [1, 9, 9, 4, 8], [1, 9, 9, 4, 8]]
    shared = shared_beginnings(rows, ["a", "a", "a", "", ""], image_token=9, pad=0)
    assert shared is not None
    assert shared.beginnings == [[1, 9, 9, 4], [2, 9, 9, 4], [1, 9, 9, 4], [1, 9, 9, 4]]
    assert shared.rest["rest_of"].tolist() == [0, 0, 1, 2, 3]
    assert shared.rest["rest_ids"].tolist() == [[0, 5], [6, 7], [0, 5], [0, 8], [0, 8]]
    assert shared_beginnings(rows[:2], ["a", "b"], image_token=9, pad=0) is None
    # Nothing but the image's own places may count otherwise than by one.
    for short in ([1, 9, 9], [1, 9, 9, 4]):
        assert shared_beginnings([short, short], ["a", "a"], image_token=9, pad=0) is None


def test_rows_that_have_ended_are_let_go(llava):
    domain = build_phantom("w", "dermoscopy", "vqa", n_patients=40, seed=5)
    asked = [Turn(llava.preprocess(domain.images.load(e.image)), e.question) for e in domain.split("train")[:16]]
    batch = llava.collate(asked, supervise=False)
    with torch.no_grad():
        whole = llava.model.generate(**batch, max_new_tokens=12, do_sample=False)[:, batch["input_ids"].shape[1] :]
    read = []
    hook = llava.model.register_forward_pre_hook(
        lambda _, __, inputs: read.append(len(inputs["input_ids"])), with_kwargs=True
    )
    texts = llava.generate(batch, max_new_tokens=12)
    hook.remove()
    assert texts == [text.strip() for text in llava.tokenizer.batch_decode(whole, skip_special_tokens=True)]
    lengths = (whole != llava.tokenizer.pad_token_id).sum(1)
    assert read[0] == 16
    assert len(read) == lengths.max()  # and no step after the last row's end
    assert read == sorted(read, reverse=True)
    assert 4 * int((lengths == lengths.max()).sum()) >= 3 * read[-1]


def test_predictions_come_back_by_index_from_an_order_of_like_lengths_and_images(llava):
    domain = build_phantom("w", "ultrasound", "vqa", n_patients=20, questions_per_image=3, seed=1)
    module = GenerativeModule(llava, ASK, mode="vqa", max_new_tokens=8)
    examples = domain.split("test")
    order = module.arrange(examples)
    assert sorted(order) == list(range(len(examples)))
    assert order != sorted(order)
    images = [examples[index].image for index in order]
    assert sum(a != b for a, b in pairwise(images)) == len(set(images)) - 1
    longest = {image: max(len(e.question) for e in examples if e.image == image) for image in images}
    assert [longest[image] for image in images] == sorted(longest[image] for image in images)

    def predicted():
        texts: dict[int, str] = {}
        scores: dict[int, tuple[float, ...]] = {}
        for rows in data.arranged("test", module.collate_eval):
            columns = module.predict_step(rows, 0)
            texts |= dict(zip(columns["index"], columns["prediction"], strict=True))
            scores |= dict(zip(columns["index"], map(tuple, columns["option_scores"]), strict=True))
        return texts, scores

    data = DomainDataModule(domain, llava.preprocess, batch_size=8, eval_batch_size=8)
    texts, scores = predicted()
    data.arrange = module.arrange
    arranged = predicted()
    assert list(arranged[0]) == order
    assert arranged[0] == texts
    for index, values in arranged[1].items():
        assert values == pytest.approx(scores[index], abs=1e-4)
    assert any(scores.values())


def test_labels_asked_about_one_by_one_do_not_depend_on_how_many_are_read_at_once(llava):
    from vlmbench.modules.prompting import diagnosis

    domain = build_phantom("w", "radiograph", "diagnosis", target="multilabel", n_patients=8, seed=1)
    ask = diagnosis(domain, "{options}?", "does the {modality} image show {label}?")
    count = len(domain.label_names)
    module = GenerativeModule(llava, ask, mode="diagnosis", label_count=count, multi_label=True)
    data = DomainDataModule(domain, llava.preprocess, batch_size=4, eval_batch_size=4)
    rows = [data.rows("train")[index] for index in range(2 * count)]
    together = [row["scores"] for row in module.answer(rows)]
    for row, scores in zip(rows, together, strict=True):
        assert module.answer([row])[0]["scores"] == pytest.approx(scores, abs=1e-5)
