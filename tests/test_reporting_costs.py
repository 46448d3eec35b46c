"""The front against brute force, and the section: what is dear and worse is off it, with its uncertainty."""

import numpy as np
import pytest
from synthetic_records import make_record
from synthetic_study import diagnosis_frame, write_cell

from vlmbench.metrics.pareto import front
from vlmbench.reporting import costs
from vlmbench.reporting.costs import operations_text
from vlmbench.reporting.load import load_rows
from vlmbench.reporting.spending import budgets
from vlmbench.reporting.study import Settings, Study


def test_the_front_is_what_nothing_dominates_ties_included():
    rng = np.random.default_rng(0)
    for _ in range(20):
        prices, scores = rng.integers(0, 4, 9).astype(float), rng.integers(0, 4, (9, 5)).astype(float)
        found = front(prices, scores)
        for r, column in enumerate(scores.T):
            for i in range(9):
                beaten = any(
                    prices[j] <= prices[i]
                    and column[j] >= column[i]
                    and (prices[j] < prices[i] or column[j] > column[i])
                    for j in range(9)
                )
                assert found[i, r] == (not beaten)
    assert front([1, 1, 2], [0.5, 0.5, 0.5]).tolist() == [True, True, False]
    assert front([1, 2], [np.nan, 0.1]).tolist() == [False, True]


METHODS = {"zero_shot": (0.6, 0, 0.0), "linear_probe": (0.8, 258, 2e9), "lora": (0.7, 9000, 3e12)}


def taken(trainable, operations):
    """The cost of a record: everything grows with what trains; what trains nothing has no operations on record."""
    made = make_record()["cost"] | {"saved_bytes": 4 * trainable, "flops": {"total": operations or None}}
    made["parameters"] = {"head": {"trainable": trainable, "total": 800_000}}
    return made


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = tmp_path_factory.mktemp("costs")
    for data, domain in enumerate(("phantom_radiograph", "phantom_fundus")):
        for number, (finetune, (auroc, *cost)) in enumerate(METHODS.items()):
            for seed in (0, 1) if finetune != "zero_shot" else (0,):
                frame = diagnosis_frame(300, auroc, noise=10 * number + seed, data=data)
                told = {"finetune": finetune, "scope": "", "seed": seed, "cost": taken(*cost)}
                write_cell(root, frame, "tiny_clip", domain, **told)
    frame = diagnosis_frame(300, 0.99, noise=5)
    write_cell(root, frame, "tiny_medclip", "phantom_radiograph", finetune="full", scope="", cost=taken(1, 1.0))
    rows, _ = load_rows(root)
    return Study(root, rows, settings=Settings(resamples=300))


def test_what_is_dear_and_worse_is_off_the_front_in_nearly_every_resample(study):
    (one,) = budgets(study)
    assert one.domains == ("phantom_fundus", "phantom_radiograph")
    assert one.left_out == ("tiny_medclip, full",)  # it ran on one domain alone
    spent = {s.first.first.finetune: s for s in one.spent}
    assert set(spent) == set(METHODS)
    probe = spent["linear_probe"]
    values = [row.primary.value for row in study.rows if row.finetune == "linear_probe"]
    assert probe.level.estimate == pytest.approx(np.mean(values), abs=1e-9)
    assert probe.level.low < 0.8 < probe.level.high
    for name in ("saved", "trainable"):
        assert [spent[method].on_front[name] for method in METHODS] == [True, True, False]
        assert spent["zero_shot"].share[name] == 1.0
        assert probe.share[name] == 1.0
        assert spent["lora"].share[name] < 0.05
    assert spent["lora"].costs["flops"] == 3e12
    assert spent["zero_shot"].costs["flops"] is None


def test_the_section_draws_every_cost_that_is_on_record(study):
    made = costs.section(study)
    assert made is not None
    assert made.body.count('class="plot"') == 4
    assert made.body.count("fewer than two models and methods have it and a score on record") == 1  # device seconds
    assert "3 TFLOP" in made.body
    assert "Left out, for want of one of these domains" in made.body
    assert operations_text(4_284_038_528) == "4.28 GFLOP"
