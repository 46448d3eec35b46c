"""Real images, by configuration alone; skipped with a reason where the sets are not there."""

import json

import pytest
from real_data import real_set

FOLDERS = {
    "cxr_kermany": ["domain.modality=radiograph", "domain.label_column=label_binary"],
    "derm_ham10000": ["domain.modality=dermoscopy"],
    "us_busi": ["domain.modality=ultrasound"],
}
QUICK = ["trainer.max_epochs=1", "task.resamples=200"]


def folder(name):
    return ["domain=folder", f"domain.name={name}", f"domain.root={real_set(name)}", *FOLDERS[name]]


@pytest.mark.real
@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("method", ["linear_probe", "lora"])
def test_a_folder_of_real_images(train, name, method):
    ran = train(*folder(name), f"finetune={method}", *QUICK, small=False)
    assert ran.status == 0, ran.err
    record = ran.record
    assert record["n"]["examples"] == len(ran.predictions) > 200
    assert record["metrics"]["auroc"]["low"] > 0.5
    assert record["data"]["audit"]["train-test"]["groups"] == 0


@pytest.mark.real
@pytest.mark.parametrize("method", ["linear_probe", "lora"])
def test_tuned_cells_on_the_radiographs_are_well_above_chance(train, method):
    ran = train(*folder("cxr_kermany"), f"finetune={method}", "trainer.max_epochs=6", small=False)
    assert ran.record["metrics"]["auroc"]["low"] > 0.75


@pytest.mark.real
@pytest.mark.parametrize("method", ["zero_shot", "lora"])
def test_real_questions(train, method):
    root = real_set("vqa_rad")
    domain = ["domain=vqa_jsonl", "domain.name=vqa_rad", f"domain.root={root}", "domain.modality=radiology"]
    ran = train(
        "model=tiny_llava",
        f"finetune={method}",
        *domain,
        "domain.split_field=split_image_disjoint",
        *QUICK,
        small=False,
    )
    assert ran.status == 0, ran.err
    assert ran.record["data"]["audit"]["train-test"]["images"] == 0
    assert ran.record["n"]["examples"] == 705


@pytest.mark.real
def test_a_leaking_split_stops_the_run_unless_it_is_to_be_reported(train):
    domain = ["domain=vqa_jsonl", "domain.name=rad", f"domain.root={real_set('vqa_rad')}", "domain.modality=radiology"]
    ran = train("model=tiny_llava", "finetune=zero_shot", *domain, small=False)
    assert ran.status == 2
    assert "split" in ran.err
    ran = train(
        "model=tiny_llava", "finetune=zero_shot", *domain, "domain.on_leak=report", "task.likelihood=false", small=False
    )
    assert json.dumps(ran.record["data"]["audit"]["train-test"]["images"]) != "0"
