"""What to take for a budget: chosen on validation among what fits, and honest where nothing can be said."""

import numpy as np
import pytest
from synthetic_records import make_record, write_record
from synthetic_study import diagnosis_frame, write_cell

from vlmbench.reporting.advising import advice_text, budget_text, expected_text
from vlmbench.reporting.evidence import Evidence
from vlmbench.reporting.load import load_rows
from vlmbench.reporting.ordering import newest
from vlmbench.reporting.recommendation import recommend
from vlmbench.reporting.study import Settings, Study

DOMAIN = "phantom_radiograph"


def advised(root, **settings):
    current, older = newest(load_rows(root)[0])
    study = Study(root, current, older, settings=Settings(resamples=400, **settings))
    return recommend(study, Evidence()), study.settings


def write(root, model, finetune, *, auroc, validation, hours=0.1, gib=4.0, labelled=400, domain=DOMAIN, **more):
    """One cell with its cost; `validation` None for one that nothing selected."""
    record = make_record(model, domain, finetune=finetune, scope="")
    record["cost"] |= {
        "device_seconds": 3600 * hours,
        "peak_memory_bytes": {"host": 9 * 2**30, "device": gib * 2**30},
    }
    record["data"]["splits"]["train"]["examples"] = labelled
    write_cell(
        root,
        diagnosis_frame(300, auroc, noise=len(model + finetune), data=len(domain.partition("@")[0])),
        model,
        domain,
        finetune=finetune,
        scope="",
        cost=record["cost"],
        data=record["data"],
        selection=None if validation is None else {"metric": "val/auroc", "value": validation},
        **more,
    )


def three(root):
    """A heavy one that is best on validation, a light one that is better on test, and an untuned one."""
    write(root, "tiny_clip", "lora", auroc=0.8, validation=0.9, hours=2, gib=10)
    write(root, "tiny_clip", "linear_probe", auroc=0.9, validation=0.7, hours=0.1)
    write(root, "tiny_medclip", "coop", auroc=0.6, validation=0.8, hours=1)
    write(root, "tiny_medclip", "zero_shot", auroc=0.6, validation=None, hours=0.01)


@pytest.mark.parametrize(
    ("budget", "label", "fitting"),
    [
        ({}, "tiny_clip, lora", 4),
        ({"gpu_hours": 1.5}, "tiny_medclip, coop", 3),
        ({"memory_gib": 8}, "tiny_medclip, coop", 3),
        ({"gpu_hours": 0.5, "memory_gib": 8}, "tiny_clip, linear_probe", 2),
    ],
)
def test_validation_chooses_among_what_fits(tmp_path, budget, label, fitting):
    three(tmp_path)
    (one,), settings = advised(tmp_path, **budget)
    assert (one.options[0].label, one.fitting, one.measured) == (label, fitting, 4)
    assert set(one.misfits) == {"tiny_clip, lora", "tiny_medclip, coop"} - {
        "tiny_medclip, coop" if fitting > 2 else "",
        "tiny_clip, lora" if fitting > 3 else "",
    }
    assert advice_text(one, settings)[0].startswith(f"Take {label}.")


def test_the_second_and_the_next_cheaper_are_told_with_what_the_test_set_says(tmp_path):
    three(tmp_path)
    write(tmp_path, "tiny_medclip", "lora", auroc=0.77, validation=0.89, hours=3)
    (one,), settings = advised(tmp_path)
    roles = {option.role: option.label for option in one.options}
    assert roles == {"best": "tiny_clip, lora", "second": "tiny_medclip, lora", "cheaper": "tiny_medclip, coop"}
    _, second, cheaper, *caveats = advice_text(one, settings)
    assert "it cannot tell the two apart" in second
    assert one.options[2].loss.low > 0
    assert "cannot tell" not in cheaper
    assert caveats == ["One seed alone was trained: another may give another result."]
    assert expected_text(one.options[0]).startswith(f"{one.options[0].expected.estimate:.3f} [")


def test_of_two_recipes_the_one_that_fits_is_recommended(tmp_path):
    three(tmp_path)
    wide = make_record()["config"] | {"finetune": {"name": "lora", "rank": 64}}
    write(tmp_path, "tiny_clip", "lora", auroc=0.8, validation=0.95, hours=9, config=wide)
    (one,), settings = advised(tmp_path, gpu_hours=3)
    assert (one.options[0].label, one.options[0].largest("hours")) == ("tiny_clip, lora", 2)
    assert not one.misfits
    told = advice_text(one, settings)[0]
    assert "Of the 3 that validation compares, among the 4 measured, it is the best" in told


def test_what_took_an_unknown_time_is_not_called_cheaper(tmp_path):
    three(tmp_path)
    unknown = make_record()["cost"] | {"device_seconds": None, "seconds": {}}
    write_cell(
        tmp_path,
        diagnosis_frame(300, 0.7, noise=9, data=len(DOMAIN)),
        "tiny_medclip",
        DOMAIN,
        finetune="full",
        scope="",
        cost=unknown,
        selection={"metric": "val/auroc", "value": 0.85},
    )
    (one,), _ = advised(tmp_path)
    roles = {option.role: option.label for option in one.options}
    assert roles == {"best": "tiny_clip, lora", "second": "tiny_medclip, full", "cheaper": "tiny_medclip, coop"}


def test_labels_count_training_examples_and_few_shot_cells_are_candidates(tmp_path):
    write(tmp_path, "tiny_clip", "lora", auroc=0.9, validation=0.9, labelled=400)
    write(tmp_path, "tiny_clip", "lora", auroc=0.7, validation=0.7, labelled=16, domain=f"{DOMAIN}@8shots")
    (one,), settings = advised(tmp_path, labelled=100)
    assert [option.label for option in one.options] == ["tiny_clip, lora (8shots)"]
    assert "400 of 100" in one.misfits["tiny_clip, lora"]
    assert budget_text(settings) == "at most 100 labelled training examples"


def test_where_nothing_fits_or_nothing_ranks_nothing_is_recommended(tmp_path):
    three(tmp_path)
    (one,), settings = advised(tmp_path, gpu_hours=0.001)
    assert not one.options
    assert advice_text(one, settings) == ["Nothing is recommended: nothing that was measured fits the budget."]
    (one,), settings = advised(tmp_path, gpu_hours=0.05)
    assert [option.role for option in one.options] == ["unranked"]
    assert "no validation value ranks" in advice_text(one, settings)[0]


def test_validation_losses_of_two_language_models_are_not_compared(tmp_path):
    for number, model in enumerate(("tiny_llava", "tiny_llava_med")):
        for finetune, loss in (("connector", 1.0), ("lora", 0.5)):
            selection = {"metric": "val/loss", "value": loss + number}
            write_record(tmp_path, make_record(model, DOMAIN, task="vqa", finetune=finetune, selection=selection))
    (one,), settings = advised(tmp_path)
    assert [option.label for option in one.options] == ["tiny_llava, lora · vision", "tiny_llava_med, lora · vision"]
    told = advice_text(one, settings)
    assert "not comparable" in told[0]
    assert "not known: tiny_llava, lora · vision, seed 0: no predictions beside the record" in told[1]


def test_over_domains_only_what_was_run_on_all_of_them_counts(tmp_path):
    for domain, values in ((DOMAIN, (0.9, 0.6)), ("phantom_fundus", (0.6, 0.8))):
        for model, validation in zip(("tiny_clip", "tiny_medclip"), values, strict=True):
            write(tmp_path, model, "lora", auroc=validation, validation=validation, domain=domain)
    write(tmp_path, "tiny_clip", "full", auroc=0.99, validation=0.99)
    advice, _ = advised(tmp_path)
    assert [(len(one.domains), one.options[0].label) for one in advice] == [
        (2, "tiny_clip, lora"),
        (1, "tiny_medclip, lora"),
        (1, "tiny_clip, full"),
    ]
    whole, *single = (one.options[0].expected for one in advice)
    assert np.isfinite([whole.low, *(one.low for one in single)]).all()
    assert whole.high - whole.low < single[0].high - single[0].low


def test_an_untuned_model_is_ranked_by_its_prompt_and_a_baseline_is_not_recommended(tmp_path):
    prompts = {"metric": "auroc", "chosen": 1, "candidates": [{"value": 0.5}, {"value": 0.8}]}
    write(tmp_path, "tiny_clip", "zero_shot", auroc=0.8, validation=None, prompts=prompts)
    write(tmp_path, "tiny_clip", "linear_probe", auroc=0.8, validation=0.7)
    write(tmp_path, "random_features", "linear_probe", auroc=0.8, validation=0.99, role="baseline")
    (one,), _ = advised(tmp_path)
    assert [option.label for option in one.options] == ["tiny_clip, zero_shot", "tiny_clip, linear_probe"]
