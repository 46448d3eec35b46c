"""Open and closed answers, example by example."""

import math

import numpy as np
import pytest

from vlmbench.metrics import vqa
from vlmbench.metrics.answers import normalise

YES_NO = ["yes", "no"]


def score(*rows):
    """Evaluate rows of (prediction, answer, answer type, options[, option scores])."""
    return vqa.evaluate(*[list(column) for column in zip(*rows, strict=True)])


def test_open_metrics_equal_torchmetrics():
    from torchmetrics.functional.text import bleu_score, rouge_score

    rng = np.random.default_rng(0)
    words = ["left", "right", "lung", "effusion", "2.5", "cm", "x-ray", "Seen.", "in", "(upper)", "lobe", "œdème"]
    texts = [" ".join(rng.choice(words, size=rng.integers(0, 9))) for _ in range(400)]
    predictions, answers = texts[:200], texts[200:]
    out = vqa.evaluate(predictions, answers, ["open"] * 200, [[]] * 200)
    for i, (prediction, answer) in enumerate(zip(predictions, answers, strict=True)):
        p, a = normalise(prediction), normalise(answer)
        assert out["open_bleu1"][i] == pytest.approx(float(bleu_score([p], [[a]], n_gram=1)), rel=1e-6)  # of float32
        rouge = rouge_score(p, a, rouge_keys="rougeL", normalizer=str, tokenizer=lambda text: text.split())
        assert out["open_rouge_l"][i] == pytest.approx(float(rouge["rougeL_fmeasure"]), rel=1e-6)
        assert out["open_exact_match"][i] == (p == a)
    assert len({prediction == "" for prediction in predictions}) == 2


def test_open_metrics_by_hand():
    out = score(
        ("The left lung.", "left lung", "open", []),
        ("left lung", "the left upper lung", "open", []),
        ("lung left", "left lung", "open", []),
        ("", "left lung", "open", []),
        ("lung lung lung", "lung", "open", []),
    )
    assert out["open_exact_match"].tolist() == [1, 0, 0, 0, 0]
    assert out["open_token_f1"].tolist() == pytest.approx([1, 0.8, 1, 0, 0.5])
    assert out["open_bleu1"].tolist() == pytest.approx([1, math.exp(1 - 3 / 2), 1, 0, 1 / 3])
    assert out["open_rouge_l"].tolist() == pytest.approx([1, 0.8, 0.5, 0, 0.5])
    assert np.isnan(out["closed_accuracy"]).all()


def test_token_f1_of_empty_texts():
    assert vqa.token_f1("", "...") == 1
    assert vqa.token_f1("left", "") == 0


def test_words_of_any_script_count():
    out = score(("左 肺", "左 肺", "open", []), ("sténose", "sténose", "open", []))
    assert out["open_rouge_l"].tolist() == [1, 1]
    assert out["open_bleu1"].tolist() == [1, 1]


def test_closed_answers_are_parsed():
    out = score(
        ("No evidence of fracture", "No", "closed", YES_NO),
        ("Yes, there is no effusion", "no", "closed", YES_NO),
        ("maybe", "yes", "closed", YES_NO),
        ("B", "right", "closed", ["A. left", "B. right"]),
        ("the MRI", "MRI", "closed", []),
        ("an MRI of the head", "MRI", "closed", []),
        ("head", "head", "open", []),
    )
    assert out["closed_accuracy"][:6].tolist() == [1, 0, 0, 1, 1, 0]
    assert out["closed_unparsed"][:4].tolist() == [0, 0, 1, 0]
    assert np.isnan(out["closed_unparsed"][4:]).all()
    assert np.isnan(out["closed_accuracy"][6])
    assert out["accuracy"].tolist() == [1, 0, 0, 1, 1, 0, 1]


def test_majority_is_per_set_of_options():
    out = score(
        *[("", answer, "closed", ["Yes", "No"]) for answer in ("no", "No", "yes")],
        ("", "no", "closed", ["no", "yes"]),
        *[("", answer, "closed", ["left", "right"]) for answer in ("right", "left", "left")],
        ("", "MRI", "closed", []),
        ("", "open", "open", []),
    )
    assert out["closed_majority"][:8].tolist() == [1, 1, 0, 1, 0, 1, 1, 1]
    assert np.isnan(out["closed_majority"][8])


def test_likelihood_takes_the_single_best_option():
    out = score(
        ("", "yes", "closed", YES_NO, [-1.0, -2.0]),
        ("", "yes", "closed", YES_NO, np.array([-2.0, -1.0])),
        ("", "yes", "closed", YES_NO, [-1.0, -1.0]),
        ("", "No", "closed", YES_NO, [-math.inf, -9.0]),
        ("", "lung", "open", [], []),
        ("", "lung", "closed", [], []),
    )
    assert out["closed_accuracy_likelihood"][:4].tolist() == [1, 0, 0, 1]
    assert np.isnan(out["closed_accuracy_likelihood"][4:]).all()
    assert "closed_accuracy_likelihood" not in score(("", "yes", "closed", YES_NO, []))


def test_summary_is_the_mean_over_what_applies():
    values = score(
        ("yes", "yes", "closed", YES_NO),
        ("perhaps", "yes", "closed", YES_NO),
        ("lung", "lung", "open", []),
        ("heart", "lung", "open", []),
        ("liver", "lung", "open", []),
    )
    summary = vqa.summary(values)
    assert summary["closed_accuracy"] == summary["closed_unparsed"] == 0.5
    assert summary["closed_majority"] == 1
    assert summary["open_exact_match"] == pytest.approx(1 / 3)
    assert summary["accuracy"] == pytest.approx(2 / 5)
    only_closed = vqa.summary(score(("yes", "yes", "closed", YES_NO)))
    assert math.isnan(only_closed["open_bleu1"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["a"], [], ["open"], [[]]), "1 predictions, but {'answers': 0}"),
        ((["a"], ["a"], ["open"], [[]], []), "option_scores"),
        ((["a"], ["a"], ["CLOSED"], [[]]), r"got \['CLOSED'\]"),
        ((["a"], ["left"], ["closed"], [YES_NO]), "row 0: the answer 'left' is none of the options"),
        ((["a"], ["yes"], ["closed"], [YES_NO], [[0.1, 0.2, 0.3]]), "row 0: option_scores"),
        ((["a"] * 2, ["yes"] * 2, ["closed"] * 2, [YES_NO] * 2, [[0.1, 0.2], []]), "row 1: option_scores"),
        ((["a"], ["yes"], ["closed"], [YES_NO], [[0.1, math.nan]]), "row 0: option_scores"),
    ],
)
def test_faults_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        vqa.evaluate(*arguments)
