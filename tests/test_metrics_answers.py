"""Normalisation, and the strict reading of a text as one of several options."""

import pytest

from vlmbench.metrics.answers import match_option, normalise, parse_choice, tokens

YES_NO = ("yes", "no")
SIDES = ("left", "right")
LETTERS = ("A", "B", "C")
LETTERED = ("A. left lung", "B. right lung")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  The   Left\tLung. ", "left lung"),
        ("Ｌｅｆｔ　lung", "left lung"),
        ("“Left lung”", "left lung"),
        ("**left** (lung)", "left lung"),
        ("2.5 cm", "2.5 cm"),
        ("25 cm", "25 cm"),
        ("x-ray", "x-ray"),
        (">50% of -5 °C", ">50% of -5 °c"),
        ("- left - lung -", "left lung"),
        ("hepatitis A", "hepatitis a"),
        ("a", "a"),
        ("An MRI of the head", "mri of head"),
        ("STRASSE", "strasse"),
        ("straße", "strasse"),
        ("की।", "की"),
        ("!!!", ""),
        ("", ""),
    ],
)
def test_normalise(text, expected):
    assert normalise(text) == expected
    assert normalise(expected) == expected
    assert " ".join(tokens(text)) == expected


def test_a_letter_with_a_mark_is_no_article():
    assert normalise("(a) mass") == "a mass"
    assert normalise("A. mass") == "a mass"
    assert normalise("(A mass") == "mass"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("yes", "yes"),
        ("YES", "yes"),
        ("Ｎｏ", "no"),
        ("“Yes.”", "yes"),
        ("**No**", "no"),
        ("- yes", "yes"),
        ("NO!!!", "no"),
        ("Yes\n", "yes"),
        ("No evidence of fracture", "no"),
        ("No, the heart is of normal size.", "no"),
        ("Yes, there is no effusion", "yes"),
        ("Yes, it is not normal", "yes"),
        ("The answer is: no.", "no"),
        ("Answer: yes, there is no effusion", "yes"),
        ("The final answer is **Yes**.", "yes"),
        ("There is no effusion.", "no"),
        ("I would say yes.", "yes"),
        ("Yes.There is one", "yes"),
        ("yes yes yes", "yes"),
        ("", None),
        ("   \n", None),
        ("...", None),
        ("normal", None),
        ("not sure", None),
        ("cannot tell", None),
        ("It is not normal", None),
        ("nope", None),
        ("yeah", None),
        ("noyes", None),
        ("no-one knows", None),
        ("yes and no", None),
        ("yes or no", None),
        ("yes/no", None),
        ("yes-no", None),
        ("Yes. No.", None),
        ("No. Yes.", None),
        ("no, the answer is yes", None),
        ("Either yes or no is possible", None),
        ("I would not say yes", None),
        ("I don’t think the answer is yes", None),
        ("The answer is not no", None),
        ("No idea", None),
        ("No doubt, there is one", None),
        ("The right lung", None),
    ],
)
def test_yes_and_no(text, expected):
    assert parse_choice(text, YES_NO) == expected


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("The left one.", SIDES, "left"),
        ("LEFT", SIDES, "left"),
        ("left-sided effusion", SIDES, "left"),
        ("Left. The left side is whiter.", SIDES, "left"),
        ("leftover", SIDES, None),
        ("left or right", SIDES, None),
        ("left-right", SIDES, None),
        ("both", SIDES, None),
        ("it is not left", SIDES, None),
        ("it isn’t left", SIDES, None),
        ("it is not left, it is right", SIDES, None),
        ("right, not left", SIDES, None),
        ("left is not affected", SIDES, None),
        ("left-sided disease is ruled out", SIDES, None),
        ("Not a good image. It is left.", SIDES, "left"),
        ("A.", SIDES, None),
        ("normal", ("normal", "abnormal"), "normal"),
        ("It looks abnormal", ("normal", "abnormal"), "abnormal"),
        ("no pneumonia", ("pneumonia", "effusion"), None),
        ("absence of pneumonia", ("pneumonia", "effusion"), None),
        ("non-contrast CT", ("contrast", "non-contrast"), "non-contrast"),
        ("a non-contrast scan", ("contrast", "plain"), None),
        ("the left lung", ("left lung", "lung"), "left lung"),
        ("the upper left lung", ("left lung", "lung"), "left lung"),
        ("about 2.5 cm", ("2", "5"), None),
        ("there are 2, I think", ("1", "2"), "2"),
        ("Yes, maybe", ("yes", "no", "maybe"), None),
        ("maybe", ("yes", "no", "maybe"), "maybe"),
        ("None of them", ("left", "none"), "none"),
        ("Left", ("LEFT", "left"), "LEFT"),
        ("anything", (), None),
        ("right upper lobe", ("right upper", "upper lobe"), None),
        ("the base of the left lung", ("base of the left lung", "apex"), "base of the left lung"),
    ],
)
def test_named_options(text, options, expected):
    assert parse_choice(text, options) == expected


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("A.", LETTERS, "A"),
        ("a", LETTERS, "A"),
        ("(b)", LETTERS, "B"),
        ("B) mass", LETTERS, "B"),
        ("Option C is best", LETTERS, "C"),
        ("The answer is b", LETTERS, "B"),
        ("The answer is (A), because", LETTERS, "A"),
        ("It is a mass", LETTERS, None),
        ("The answer is a mass", LETTERS, None),
        ("A mass", LETTERS, None),
        ("hepatitis B", LETTERS, None),
        ("A or B", LETTERS, None),
        ("A) or B)", LETTERS, None),
        ("The answer is A, B", LETTERS, None),
        ("option a or option b", LETTERS, None),
        ("D", LETTERS, None),
        ("It is not option B", LETTERS, None),
        ("Not (B).", LETTERS, None),
        ("(B) is incorrect", LETTERS, None),
        ("Option A cannot be right", LETTERS, None),
        ("Option A can be ruled out", LETTERS, None),
        ("The image is not clear. The answer is (B).", LETTERS, "B"),
        ("B. There is no effusion", LETTERS, "B"),
        ("(B) no effusion", LETTERS, "B"),
        ("B", LETTERED, "B. right lung"),
        ("(b)", LETTERED, "B. right lung"),
        ("right lung", LETTERED, "B. right lung"),
        ("B. Right lung", LETTERED, "B. right lung"),
        ("B) the right lung is whiter", LETTERED, "B. right lung"),
        ("It is the left lung", LETTERED, "A. left lung"),
        ("A. right lung", LETTERED, None),
        ("C", LETTERED, None),
        ("A", ("A. yes", "B. no"), "A. yes"),
        ("No, it is clear", ("A. yes", "B. no"), "B. no"),
    ],
)
def test_letters_count_only_where_marked(text, options, expected):
    assert parse_choice(text, options) == expected


def test_the_longest_texts_are_read_in_linear_time():
    assert parse_choice("word " * 50_000 + "yes", YES_NO) == "yes"
    assert parse_choice("not " * 50_000 + "yes", YES_NO) is None
    assert parse_choice("!" * 150_000 + "x no", YES_NO) == "no"
    assert parse_choice("n" * 150_000, YES_NO) is None
    assert parse_choice("b) " * 50_000, LETTERS) == "B"
    assert parse_choice("(b). " * 50_000, LETTERS) == "B"


def test_match_option_needs_the_whole_text():
    assert match_option("Right.", SIDES) == "right"
    assert match_option("right side", SIDES) is None
    assert match_option("", ("", "left")) is None


def test_the_option_comes_back_as_it_is_spelled():
    assert parse_choice("no.", ("Yes", "No")) == "No"
