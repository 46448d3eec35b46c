"""A cell repeats exactly, and what it saved predicts the same in a new process."""

import json
import subprocess
import sys

import pandas as pd
import pytest

from vlmbench.domains.phantom.build import build_phantom

DIAGNOSIS = ["domain=phantom_fundus", "domain.patients=24"]


def evaluate(cell, *arguments):
    command = [sys.executable, "-m", "vlmbench.evaluate", f"cell={cell}", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def transferred(cell):
    (folder,) = (path.parent for path in cell.glob("transfer/*/record.json"))
    return json.loads((folder / "record.json").read_text()), pd.read_parquet(folder / "predictions.parquet")


@pytest.mark.parametrize(
    "arguments",
    [
        ["finetune=linear_probe", *DIAGNOSIS],
        ["finetune=lora", *DIAGNOSIS],
        ["finetune=full", "finetune.scope=vision+text", "finetune.classifier=text", *DIAGNOSIS],
        ["model=tiny_llava", "finetune=lora", "finetune.scope=VML", *DIAGNOSIS],
        ["model=tiny_llava", "finetune=connector", *DIAGNOSIS],
        ["model=tiny_llava", "finetune=lora", "trainer.precision=bf16-mixed", *DIAGNOSIS],
        ["model=tiny_llava", "finetune=connector", "trainer.precision=bf16-mixed", *DIAGNOSIS],
    ],
    ids=lambda arguments: " ".join(arguments[:3]),
)
def test_put_back_in_a_new_process_it_predicts_the_same(train, arguments):
    ran = train(*arguments)
    assert ran.status == 0, ran.err
    (cell,) = ran.cells
    done = evaluate(cell, *DIAGNOSIS)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    record, frame = transferred(cell)
    pd.testing.assert_frame_equal(frame, ran.predictions, check_exact=True)
    assert record["kind"] == "transfer"
    assert record["metrics"] == ran.record["metrics"]
    assert record["hashes"]["data"] == ran.record["hashes"]["data"]


@pytest.mark.parametrize(
    "arguments",
    [["finetune=lora"], ["model=tiny_llava", "finetune=lora"], ["finetune=linear_probe"]],
    ids=["contrastive", "generative", "probe"],
)
def test_the_same_cell_twice_gives_identical_predictions(train, tmp_path, arguments):
    first = train(*arguments, output=tmp_path / "first")
    second = train(*arguments, output=tmp_path / "second")
    other = train(*arguments, "seed=1", output=tmp_path / "other")
    assert first.status == second.status == other.status == 0
    assert first.record["identity"] == second.record["identity"] != other.record["identity"]
    left, right = ((ran.cells[0] / "predictions.parquet").read_bytes() for ran in (first, second))
    assert left == right
    if arguments != ["finetune=linear_probe"]:
        assert first.record["training"]["curve"] != other.record["training"]["curve"]


def test_transfer_goes_to_other_domains_and_keeps_its_origin(train, command):
    (cell,) = train("finetune=lora", *DIAGNOSIS).cells
    status, out, err = command("evaluate", f"cell={cell}", "domain=phantom_oct", "domain.patients=24")
    assert status == 0, err
    record, frame = transferred(cell)
    assert "auroc" in out
    assert record["trained_on"] == "phantom_fundus"
    assert record["cell"]["domain"] == "phantom_oct"
    assert len(frame) == record["n"]["examples"]
    assert record["selection"] is None


def test_kernels_are_those_of_the_machine_that_evaluates(train, command):
    (cell,) = train("finetune=linear_probe", *DIAGNOSIS).cells
    trained = json.loads((cell / "record.json").read_text())
    trained["config"]["trainer"] |= {"attention": "flash_attention_2", "compile": True}
    (cell / "record.json").write_text(json.dumps(trained))
    status, _, err = command("evaluate", f"cell={cell}", "domain=phantom_fundus", "domain.patients=20")
    assert status == 0, err
    record, _ = transferred(cell)
    assert (record["config"]["trainer"]["attention"], record["config"]["trainer"]["compile"]) == ("auto", False)


def test_a_head_does_not_go_to_other_labels(train, command):
    (cell,) = train("finetune=linear_probe", *DIAGNOSIS).cells
    status, _, err = command("evaluate", f"cell={cell}", "domain=phantom_dermoscopy")
    assert status == 2
    assert "['normal', 'abnormal']" in err
    assert "['benign', 'malignant']" in err


def test_text_prompts_go_to_any_labels(train, command):
    (cell,) = train("finetune=zero_shot", *DIAGNOSIS).cells
    target = ["domain=phantom_dermoscopy", "domain.patients=24", "domain.target=multiclass"]
    status, _, err = command("evaluate", f"cell={cell}", *target)
    assert status == 0, err
    record, frame = transferred(cell)
    assert "score_3" in frame
    assert record["data"]["labels"][0] == "nevus"


# Whose learned part goes to any labels; and what the message calls that which does not.
LIGHT = {
    "coop": (["finetune=coop", "finetune.context_length=4"], ""),
    "clip_adapter": (["finetune=clip_adapter"], ""),
    "lp_text": (["finetune=lp_text"], "text-informed probe"),
    "class_specific": (["finetune=coop", "finetune.class_specific=true"], "context for each class"),
}


@pytest.mark.parametrize(("method", "bound"), LIGHT.values(), ids=LIGHT)
def test_what_was_learned_on_encoded_images_is_put_back_and_goes_where_it_has_a_meaning(train, command, method, bound):
    ran = train(*method, "trainer.max_epochs=1", *DIAGNOSIS)
    (cell,) = ran.cells
    status, _, err = command("evaluate", f"cell={cell}", *DIAGNOSIS)
    assert status == 0, err
    pd.testing.assert_frame_equal(transferred(cell)[1], ran.predictions, check_exact=True)
    target = ["domain=phantom_dermoscopy", "domain.patients=24", "domain.target=multiclass"]
    status, _, err = command("evaluate", f"cell={cell}", *target)
    if bound:
        assert status == 2
        assert f"the cell's {bound} has the labels ['normal', 'abnormal']" in err
    else:
        assert status == 0, err
        assert len(list(cell.glob("transfer/*/record.json"))) == 2


def test_a_context_for_one_label_an_image_goes_to_no_domain_with_several(train, command):
    (cell,) = train(*LIGHT["coop"][0], "trainer.max_epochs=1", *DIAGNOSIS).cells
    status, _, err = command("evaluate", f"cell={cell}", "domain=phantom_oct", "domain.target=multilabel")
    assert status == 2
    assert "trained with one label an image, and phantom_oct has several" in err


def test_an_external_test_set_is_for_predicting_and_not_for_training(train, command, tmp_path):
    world = build_phantom("w", "fundus", "diagnosis", n_patients=12, seed=9)
    rows = ["image,label,split,patient_id"]
    for number, example in enumerate(world.examples):
        world.images.load(example.image).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{world.label_names[example.labels[0]]},test,{example.group}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    outside = ["domain=folder", f"domain.root={tmp_path}", "domain.name=outside", "domain.modality=fundus"]
    outside.append("domain.labels=[normal,abnormal]")
    (cell,) = train("finetune=lora", *DIAGNOSIS, output=tmp_path / "a").cells
    status, _, err = command("evaluate", f"cell={cell}", *outside)
    assert status == 0, err
    assert len(transferred(cell)[1]) == len(world.examples)
    assert train("finetune=zero_shot", *outside, output=tmp_path / "b", small=False).status == 0
    refused = train("finetune=linear_probe", *outside, output=tmp_path / "c", small=False)
    assert refused.status == 2
    assert "test rows alone" in refused.err


def test_an_interrupted_transfer_is_one_message_and_leaves_no_record(train, command, monkeypatch):
    (cell,) = train("finetune=zero_shot", *DIAGNOSIS).cells

    def interrupted(self, image):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vlmbench.backbones.contrastive.clip.HfClip.preprocess", interrupted)
        status, _, err = command("evaluate", f"cell={cell}", "domain=phantom_oct", "domain.patients=24")
    assert status == 130
    assert err.strip().endswith("the same command goes on where it stopped.")
    assert not list(cell.glob("transfer/*/record.json"))
    assert command("evaluate", f"cell={cell}", "domain=phantom_oct", "domain.patients=24")[0] == 0


@pytest.mark.parametrize("what", ["missing", "unfinished"])
def test_only_a_finished_cell_can_be_evaluated(tmp_path, command, what):
    cell = tmp_path / "cell"
    cell.mkdir()
    if what == "unfinished":
        (cell / "record.json").write_text('{"schema": 1, "kind": "cell", "status": "failed"}')
    status, _, err = command("evaluate", f"cell={cell}", "domain=phantom_oct")
    assert status == 2
    assert ("not finished" if what == "missing" else "failed") in err
