"""Published conventions on worked examples, by hand from their definitions, and the trap in them."""

import math

import numpy as np
import pytest
from synthetic_study import vqa_frame

from vlmbench.metrics import ngrams, profiles
from vlmbench.metrics.frame import score_profiles
from vlmbench.metrics.published_words import Overlap, choice_letter, overlap, published_form

YES_NO = ["yes", "no"]
LETTERED = ["A. mass", "B. cyst", "C. nodule"]


def score(profile, *rows):
    """Evaluate rows of (prediction, answer, answer type, options)."""
    return profiles.evaluate(profile, *[list(column) for column in zip(*rows, strict=True)])


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("The Left lung.", "left lung"),
        ("Two masses, none large", "2 masses 0 large"),
        ("x-ray", "x ray"),  # no space beside the hyphen
        ("x-ray - seen", "xray seen"),  # one hyphen beside a space, so that all of them are deleted
        ("1,000 cells/field", "1000 cellsfield"),  # a comma between digits deletes every mark
        ("2.5 cm. wide.", "2.5 cm wide"),
        ("it isnt, dont", "it isn't don't"),
        ("." * 33 + "a", ".a"),  # 32 periods are deleted
        ("50% (a)", "50%"),
        ("", ""),
    ],
)
def test_the_published_normalisation(text, form):
    assert published_form(text) == form


def test_words_count_as_the_prediction_says_them():
    # Shared: lung, said twice; not shared: left, of; missing: right, upper. Distinct reference words found: 1 of 4.
    assert overlap("lung lung left of", "right upper lung") == Overlap(1 / 4, 2 / 4, 2 / 4, 0.5)
    assert overlap("", "lung") == overlap("lung", "") == Overlap(0, 0, 0, 0)


def test_bleu_and_rouge_equal_torchmetrics():
    from torchmetrics.functional.text import bleu_score, rouge_score

    rng = np.random.default_rng(0)
    words = ["left", "lung", "of", "2.5", "x-ray", "upper"]
    for _ in range(40):
        one, other = (" ".join(rng.choice(words, size=rng.integers(0, 8))) for _ in range(2))
        row = score("medvlmbench", (one, other, "open", []))
        one, other = published_form(one), published_form(other)
        for n in range(1, 5):
            assert row[f"open_bleu{n}"][0] == pytest.approx(float(bleu_score([one], [[other]], n_gram=n)), abs=1e-6)
        theirs = rouge_score(one, other, rouge_keys=("rouge1", "rouge2", "rougeL"))
        for name, key in (("open_rouge1", "rouge1"), ("open_rouge2", "rouge2"), ("open_rouge_l", "rougeL")):
            assert row[name][0] == pytest.approx(float(theirs[f"{key}_fmeasure"]), abs=1e-6)


def test_no_in_normal_is_right_by_substring_and_wrong_by_strict():
    rows = [(text, "no", "closed", YES_NO) for text in ("It looks normal", "cannot tell", "Yes, abnormal", "no", "yes")]
    assert score("strict", *rows)["closed_accuracy"].tolist() == [0, 0, 0, 1, 0]
    assert score("medvlmbench", *rows)["closed_accuracy"].tolist() == [1, 1, 1, 1, 0]
    assert score("llava_med", *rows)["closed_accuracy"].tolist() == [1, 1, 1, 1, 0]


def test_medvlmbench_by_hand():
    out = score(
        "medvlmbench",
        ("there is a mass in the left lung", "left lung", "open", []),  # 6 words, 2 of 2 found
        ("mass", "left upper lung mass", "open", []),  # recall 1 / 4
        ("left upper lung", "left upper lung mass", "open", []),  # recall 3 / 4: accurate
        ("Yes it is", "yes", "closed", YES_NO),
    )
    assert out["open_exact_match"][:3].tolist() == [2 / 6, 1, 1]
    assert out["open_recall"][:3].tolist() == [1, 1 / 4, 3 / 4]
    assert out["open_accuracy"][:3].tolist() == [1, 0, 1]
    assert out["open_bleu1"][1] == pytest.approx(math.exp(1 - 4))
    assert out["closed_exact_match"][3] == 1 / 3
    assert np.isnan(out["open_recall"][3])
    assert out["recall"].mean() == pytest.approx((1 + 1 / 4 + 3 / 4 + 1) / 4)
    assert out["accuracy"].tolist() == [1, 0, 1, 1]


def test_llava_med_by_hand():
    out = score(
        "llava_med",
        ("a mass in the left lung", "left lung", "open", []),
        ("lung, left", "left lung", "open", []),  # every word, but not the string
        ("Yes.", "no", "closed", YES_NO),
        ("perhaps", "no", "closed", YES_NO),
        ("no", "no", "closed", YES_NO),
    )
    assert out["open_accuracy"][:2].tolist() == [1, 0]
    assert out["open_recall"][:2].tolist() == [1, 1]
    assert out["closed_accuracy"][2:].tolist() == [0, 0, 1]
    # run_eval.py appended nothing for "Yes.": it is in no denominator.
    assert np.nanmean(out["closed_accuracy_skipping"]) == 1 / 2
    assert out["open_bleu2"][0] == pytest.approx(1 / 3)  # bigrams alone: "left lung" of three


def test_multiple_choice_by_letter():
    rows = [
        ("B", "B. cyst", "closed", LETTERED),
        ("a cyst", "cyst", "closed", LETTERED),
        ("The answer is cardiomegaly", "C. nodule", "closed", LETTERED),
        ("no idea", "A. mass", "closed", LETTERED),
    ]
    published = score("medvlmbench", *rows)
    assert published["choice_accuracy"].tolist() == [1, 0, 1, 0]  # "a cyst" is A, and a c after "answer is" is C
    strict = score("strict", *rows)
    assert strict["choice_accuracy"].tolist() == [1, 1, 0, 0]
    assert "choice_accuracy" not in score("strict", ("yes", "yes", "closed", YES_NO))
    assert choice_letter("**d** or (b)", ["a", "b"]) == "b"


def test_multiple_choice_is_also_scored_by_likelihood():
    scores = [[-3.0, -1.0, -2.0], [-1.0, -2.0]]
    out = profiles.evaluate("strict", ["", "yes"], ["B", "no"], ["closed"] * 2, [LETTERED, YES_NO], scores)
    assert out["choice_accuracy_likelihood"][0] == 1
    assert np.isnan(out["choice_accuracy_likelihood"][1])


def test_profiles_of_a_table_share_their_resamples():
    frame = vqa_frame(60, 0.7, noise=0)
    frame["prediction"] = frame["answer"]
    frame.loc[frame["answer"] == "no", "prediction"] = "looks normal"
    result = score_profiles(frame, n_resamples=50)
    assert {name: part["metrics"]["closed_accuracy"]["value"] for name, part in result.items()} == {
        "strict": pytest.approx((frame["answer"] == "yes").sum() / (frame["answer_type"] == "closed").sum()),
        "medvlmbench": 1,
        "llava_med": 1,
    }
    assert result["strict"]["metrics"]["closed_accuracy"]["low"] < 1


def test_unknown_profiles_are_named():
    with pytest.raises(ValueError, match="'lenient' is none of strict, medvlmbench, llava_med"):
        profiles.evaluate("lenient", [], [], [], [])


def test_rouge_l_is_not_a_bag():
    assert ngrams.rouge_l(["left", "lung"], ["lung", "left"]) == 0.5
