"""Generalist beside specialist: alike cells are paired, and what keeps all others apart is named."""

import pytest
from synthetic_records import make_record

from vlmbench.reporting.load import row_from_record
from vlmbench.reporting.pairs import compare, links, obstacles


def both(**changes):
    return [make_record("tiny_clip", **changes), make_record("tiny_medclip", **changes)]


def compared(*records):
    return compare([row_from_record(record) for record in records])


def apart(left, right):
    """What keeps two records apart, which are then not paired."""
    assert not compared(left, right)
    return "; ".join(obstacles(row_from_record(left), row_from_record(right)))


def test_cells_that_differ_in_the_model_alone_are_paired():
    left, right = both()
    (pair,) = compared(right, left)
    assert (pair.generalist.model, pair.specialist.model) == ("tiny_clip", "tiny_medclip")


@pytest.mark.parametrize("part", ["finetune", "trainer", "task", "domain"])
def test_a_recipe_that_differs_is_named(part):
    left, right = both()
    right["config"][part]["budget"] = 16
    assert f"{part}.budget: absent against 16" in apart(left, right)


def test_a_setting_that_does_nothing_is_what_older_records_have():
    left, right = both()
    right["config"]["task"]["prompts"] = {"candidates": 1, "examples": 200, "in_context": 2, "seed": 0}
    right["config"]["domain"] |= {"fraction": 1.0, "shots": 0, "corruption": "none", "severity": 3}
    assert len(compared(left, right)) == 1
    right["config"]["task"]["prompts"]["candidates"] = 4
    assert apart(left, right) == "task.prompts.candidates: absent against 4"


def test_where_the_data_lie_and_what_it_ran_on_is_no_recipe():
    left, right = both()
    left["config"]["domain"]["root"], right["config"]["domain"]["root"] = "/here", "/there"
    left["config"]["trainer"]["num_workers"] = 4
    right["config"]["trainer"]["accelerator"] = "gpu"
    assert len(compared(left, right)) == 1


@pytest.mark.parametrize("change", [{"seed": 1}, {"scope": "text"}, {"finetune": "full"}, {"domain": "phantom_fundus"}])
def test_other_settings_are_never_paired(change):
    assert not compared(make_record("tiny_clip"), make_record("tiny_medclip", **change))


def test_failed_valueless_recipeless_and_other_data_are_kept_apart():
    for spoil, reason in (
        (lambda r: r.update(make_record("tiny_medclip", failed="boom")), "tiny_medclip failed"),
        (lambda r: r["metrics"]["auroc"].update(value=None), "tiny_medclip has no value"),
        (lambda r: r.update(config={}), "holds no recipe"),
        (lambda r: r["data"].update(fingerprint="other"), "data fingerprint"),
        (lambda r: r.update(primary_metric="accuracy"), "primary metric: auroc against accuracy"),
    ):
        left, right = both()
        spoil(right)
        assert reason in apart(left, right)


def test_of_data_that_neither_record_names_nothing_is_compared():
    left, right = both()
    left["data"], right["data"] = {}, {}
    assert "does not say which data it is of" in apart(left, right)


def test_of_several_recipes_the_equal_ones_find_each_other():
    left, right = both()
    other_left, other_right = both()
    for record in (other_left, other_right):
        record["config"]["finetune"]["rank"] = 64
    pairs = compared(left, other_left, other_right, right)
    ranks = [[row.record["config"]["finetune"]["rank"] for row in (p.generalist, p.specialist)] for p in pairs]
    assert sorted(ranks) == [[8, 8], [64, 64]]


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

    assert len(compared(side("tiny_clip", 4, "a"), side("tiny_medclip", 32, "a"))) == 1
    for budget in ("b", ""):
        reason = apart(side("tiny_clip", 4, "a"), side("tiny_medclip", 32, budget))
        assert "finetune.rank" in reason
        assert "budget a" in reason
