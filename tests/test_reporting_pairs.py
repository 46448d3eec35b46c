"""Generalist beside specialist: alike cells are paired, all others are refused with the reason."""

import pytest
from synthetic_records import make_record

from vlmbench.reporting.load import row_from_record
from vlmbench.reporting.pairs import compare, links


def both(**changes):
    return [make_record("tiny_clip", **changes), make_record("tiny_medclip", **changes)]


def compared(*records):
    return compare([row_from_record(record) for record in records])


def test_cells_that_differ_in_the_model_alone_are_paired():
    left, right = both()
    left["metrics"]["auroc"] |= {"value": 0.80, "low": 0.75, "high": 0.85}
    right["metrics"]["auroc"] |= {"value": 0.90, "low": 0.86, "high": 0.94}
    (pair,), refusals = compared(right, left)
    assert not refusals
    assert (pair.generalist.model, pair.specialist.model) == ("tiny_clip", "tiny_medclip")
    assert pair.difference == pytest.approx(-0.1)
    assert pair.overlap is False


@pytest.mark.parametrize("part", ["finetune", "trainer", "task", "domain"])
def test_a_recipe_that_differs_is_refused_by_name(part):
    left, right = both()
    right["config"][part]["budget"] = 16
    pairs, (refusal,) = compared(left, right)
    assert not pairs
    assert f"{part}.budget: absent against 16" in refusal.reason


def test_a_setting_that_does_nothing_is_what_older_records_have():
    left, right = both()
    right["config"]["task"]["prompts"] = {"candidates": 1, "examples": 200, "in_context": 2, "seed": 0}
    right["config"]["domain"] |= {"fraction": 1.0, "shots": 0, "corruption": "none", "severity": 3}
    (_,), refusals = compared(left, right)
    assert not refusals
    right["config"]["task"]["prompts"]["candidates"] = 4
    pairs, (refusal,) = compared(left, right)
    assert not pairs
    assert refusal.reason == "task.prompts.candidates: absent against 4"


def test_where_the_data_lie_and_what_it_ran_on_is_no_recipe():
    left, right = both()
    left["config"]["domain"]["root"], right["config"]["domain"]["root"] = "/here", "/there"
    left["config"]["trainer"]["num_workers"] = 4
    right["config"]["trainer"]["accelerator"] = "gpu"
    pairs, refusals = compared(left, right)
    assert len(pairs) == 1
    assert not refusals


@pytest.mark.parametrize("change", [{"seed": 1}, {"scope": "text"}, {"finetune": "full"}, {"domain": "phantom_fundus"}])
def test_other_settings_are_never_paired(change):
    pairs, refusals = compared(make_record("tiny_clip"), make_record("tiny_medclip", **change))
    assert not pairs
    assert {refusal.reason for refusal in refusals} == {
        "no cell of tiny_medclip with the same settings and seed",
        "no cell of tiny_clip with the same settings and seed",
    }


def test_failed_valueless_recipeless_and_other_data_are_refused():
    for spoil, reason in (
        (lambda r: r.update(make_record("tiny_medclip", failed="boom")), "tiny_medclip failed"),
        (lambda r: r["metrics"]["auroc"].update(value=None), "tiny_medclip has no value"),
        (lambda r: r.update(config={}), "holds no recipe"),
        (lambda r: r["data"].update(fingerprint="other"), "data fingerprint"),
        (lambda r: r.update(primary_metric="accuracy"), "primary metric: auroc against accuracy"),
    ):
        left, right = both()
        spoil(right)
        pairs, (refusal,) = compared(left, right)
        assert not pairs
        assert reason in refusal.reason


def test_of_data_that_neither_record_names_nothing_is_compared():
    left, right = both()
    left["data"], right["data"] = {}, {}
    pairs, (refusal,) = compared(left, right)
    assert not pairs
    assert "does not say which data it is of" in refusal.reason


def test_of_several_recipes_the_equal_ones_find_each_other():
    left, right = both()
    other_left, other_right = both()
    for record in (other_left, other_right):
        record["config"]["finetune"]["rank"] = 64
    pairs, refusals = compared(left, other_left, other_right, right)
    assert len(pairs) == 2
    assert not refusals


def test_a_declared_partner_without_records_is_said():
    _, (refusal,) = compared(make_record("tiny_clip"))
    assert refusal.partner == "tiny_medclip"
    assert "no record of tiny_medclip" in refusal.reason


def test_one_side_declaring_the_pair_is_enough():
    rows = [row_from_record(r) for r in (make_record("tiny_clip", pair=""), make_record("tiny_medclip"))]
    assert links(rows) == [("tiny_clip", "tiny_medclip")]


def test_two_sides_that_were_searched_for_alike_are_paired_and_no_others():
    def side(model, rank, budget):
        record = make_record(model)
        record["config"]["finetune"]["rank"] = rank
        if budget:
            record["search"] = {"n_trials": 16, "budget": budget, "values": {"finetune.rank": rank}}
        return record

    pairs, refusals = compared(side("tiny_clip", 4, "a"), side("tiny_medclip", 32, "a"))
    assert len(pairs) == 1
    assert not refusals
    for budget in ("b", ""):
        pairs, (refusal,) = compared(side("tiny_clip", 4, "a"), side("tiny_medclip", 32, budget))
        assert not pairs
        assert "finetune.rank" in refusal.reason
        assert "budget a" in refusal.reason
