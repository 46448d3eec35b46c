"""The real command on phantom data, for every finetune in both families."""

import json

import numpy as np
import pytest
import torch

BF16 = "trainer.precision=bf16-mixed"
CONTRASTIVE = [
    ("zero_shot", []),
    ("linear_probe", ["finetune.strengths=[0.01,1]"]),
    ("linear_probe", ["finetune.strengths=[0.01,1]", "domain.target=multiclass"]),
    ("linear_probe", ["finetune.strengths=[0.01,1]", "domain.target=multilabel"]),
    ("lp_text", []),
    ("lp_text", ["finetune.form=medical", "domain.target=multiclass"]),
    ("coop", []),
    ("coop", ["finetune.class_specific=true", "finetune.words=x in the", "domain.target=multilabel", BF16]),
    ("clip_adapter", [BF16, "finetune.optimiser=adamw"]),
    ("clip_adapter", ["domain.target=multilabel"]),
    ("lora", []),
    ("lora", ["finetune.classifier=text"]),
    ("lora", ["finetune.classifier=text", "finetune.scope=vision+text", "domain.target=multilabel"]),
    ("full", ["domain.target=multilabel"]),
    ("full", ["finetune.classifier=text", "finetune.scope=text", "domain.target=multiclass"]),
]
GENERATIVE = [
    ("zero_shot", []),
    ("connector", []),
    ("lora", ["finetune.scope=V"]),
    ("lora", ["finetune.scope=M"]),
    ("lora", ["finetune.scope=ML"]),
    ("lora", ["finetune.scope=VML", "finetune.connector=lora", "task.monitor=val/accuracy"]),
    ("full", ["finetune.scope=VML"]),
    ("zero_shot", ["task=diagnosis", "domain.target=multilabel"]),
    ("lora", ["task=diagnosis", "finetune.scope=L", "domain.target=multiclass"]),
]


def ids(rows):
    return ["-".join([method, *extra]) for method, extra in rows]


def check_record(record: dict) -> None:
    assert record["schema"] == 1
    assert record["status"] == "done"
    assert len(record["identity"]) == 64
    assert record["cost"]["seconds"]["total"] > 0
    assert record["cost"]["peak_memory_bytes"]["host"] > 1e7
    assert record["environment"]["versions"]["torch"]
    assert record["data"]["audit"]["train-test"]["groups"] == 0
    assert {"config", "data", "weights"} <= record["hashes"].keys()
    primary = record["metrics"][record["primary_metric"]]
    assert 0 <= primary["value"] <= 1
    assert record["bootstrap"]["unit"]


@pytest.mark.parametrize(("method", "extra"), CONTRASTIVE, ids=ids(CONTRASTIVE))
def test_diagnosis_by_a_contrastive_model(train, method, extra):
    ran = train(f"finetune={method}", *extra)
    assert ran.status == 0, ran.err
    record, frame = ran.record, ran.predictions
    check_record(record)
    columns = [name for name in frame if name.startswith("score_")]
    scores = frame[columns].to_numpy()
    assert len(frame) == record["n"]["examples"] == record["data"]["splits"]["test"]["examples"]
    assert np.isfinite(scores).all()
    assert ((scores >= 0) & (scores <= 1)).all()
    if "domain.target=multilabel" not in extra:
        np.testing.assert_allclose(scores.sum(1), 1, atol=1e-9)
    trainable = {part: row["trainable"] for part, row in record["cost"]["parameters"].items()}
    assert (trainable.get("vision", 0) > 0) == (method in ("lora", "full") and "finetune.scope=text" not in extra)
    assert (trainable.get("text", 0) > 0) == any("text" in item for item in extra if item.startswith("finetune.scope"))
    if method in ("lora", "full", "coop", "clip_adapter"):
        assert record["training"]["output_change"] > 0
        assert record["selection"]["metric"] == "val/auroc"
    if method == "linear_probe":
        assert record["selection"]["strength"] in (0.01, 1)
        assert record["selection"]["gradient"] < 1e-5
    if method == "lp_text":
        assert record["selection"]["iteration"] in range(0, 301, 10)
    # Of `tiny_clip`, with embeddings of width 128: vectors; two matrices; prototypes and multipliers.
    classes = len(columns)
    light = {"lp_text": 129 * classes, "coop": 16 * 128, "clip_adapter": 2 * 128 * 32}
    if "finetune.class_specific=true" in extra:
        light["coop"] = 2 * classes * 3 * 128  # of both sides
    if method in light:
        assert trainable["head"] == light[method]


@pytest.mark.parametrize(("method", "extra"), GENERATIVE, ids=ids(GENERATIVE))
def test_a_generative_model(train, method, extra):
    ran = train("model=tiny_llava", f"finetune={method}", "task.resamples=100", *extra)
    assert ran.status == 0, ran.err
    record, frame = ran.record, ran.predictions
    check_record(record)
    trainable = {part for part, row in record["cost"]["parameters"].items() if row["trainable"]}
    scope = next((item.partition("=")[2] for item in extra if item.startswith("finetune.scope")), "")
    letters = {"V": "vision", "M": "connector", "L": "language"}
    assert trainable == ({"connector"} if method == "connector" else {letters[letter] for letter in scope})
    if record["cell"]["task"] == "vqa":
        assert {"question", "answer", "prediction", "option_scores"} <= set(frame.columns)
        closed = frame[frame["answer_type"] == "closed"]
        assert len(closed) > 5
        assert all(len(row.option_scores) == len(row.options) for row in closed.itertuples())
        assert "closed_accuracy_likelihood" in record["metrics"]
    else:
        scores = frame[[name for name in frame if name.startswith("score_")]].to_numpy()
        assert np.isfinite(scores).all()


@pytest.mark.parametrize(("model", "scope"), [("tiny_clip", "vision+text"), ("tiny_llava", "VML")])
def test_pretraining_on_captions_is_a_task_like_any_other(train, model, scope):
    ran = train(
        f"model={model}",
        "task=pretrain",
        "finetune=full",
        f"finetune.scope={scope}",
        "domain=phantom_shapes",
        "trainer.eval_batch_size=8",
    )
    assert ran.status == 0, ran.err
    assert ran.record["metrics"]["loss"]["value"] > 0
    assert ran.record["primary_metric"] == "loss"


@pytest.mark.parametrize("precision", ["bf16-mixed"])
def test_reduced_precision_is_measured(train, precision):
    ran = train(
        "model=tiny_llava", "finetune=lora", f"trainer.precision={precision}", "trainer.accumulate_grad_batches=2"
    )
    assert ran.status == 0, ran.err
    variance = ran.record["batch_variance"]
    assert 0 <= variance["share"] <= 1
    assert variance["examples"] > 10
    assert ran.record["environment"]["precision"] == precision


def test_with_no_argument_the_default_cell_is_sensible(command):
    status, out, _ = command("train", "--cfg", "job", "--resolve")
    assert status == 0
    assert "name: tiny_clip" in out
    assert "name: phantom_radiograph" in out


def test_a_generative_model_brings_its_task(train):
    ran = train("model=tiny_llava_med", "finetune=zero_shot", "domain=phantom_ultrasound")
    assert ran.status == 0, ran.err
    assert ran.record["cell"]["task"] == "vqa"
    assert ran.record["exposure"] == "ood"
    assert ran.record["role"] == "specialist"


def test_weights_that_are_nowhere_are_one_line(train):
    for model, size in (("clip", "0.6 GiB"), ("llava_med", "GiB")):
        ran = train(f"model={model}", "finetune=zero_shot")
        assert ran.status != 0
        line = ran.err.strip().splitlines()[-1]
        assert size in line
        assert "hf download" in line
        assert "Traceback" not in ran.err


def test_done_cells_are_skipped_and_rescored_without_a_new_run(train):
    first = train("finetune=zero_shot")
    (cell,) = first.cells
    before = (cell / "predictions.parquet").stat().st_mtime_ns
    again = train("finetune=zero_shot", "trainer.num_workers=1")
    assert again.status == 0
    assert "done already" in again.err
    wider = train("finetune=zero_shot", "task.confidence=0.5")
    assert (cell / "predictions.parquet").stat().st_mtime_ns == before
    narrow = json.loads((cell / "record.json").read_text())["metrics"]["auroc"]
    assert wider.cells == [cell]
    assert narrow["high"] - narrow["low"] < first_width(first)


def test_a_description_that_was_mended_reaches_the_record_of_a_finished_cell(train):
    before = train("finetune=zero_shot").record
    assert (before["role"], before["exposure"]) == ("generalist", "ood")
    said = ["model.role=specialist", "model.pretraining_modalities=[radiograph]", "task.primary_metric=accuracy"]
    again = train("finetune=zero_shot", *said)
    assert "done already" in again.err
    assert "done  accuracy" in again.out
    assert (again.record["role"], again.record["exposure"]) == ("specialist", "id")
    assert again.record["metrics"] == before["metrics"]
    assert again.record["finished"] == before["finished"]


def test_a_budget_of_steps_that_ends_within_an_epoch_is_validated(train):
    ran = train("finetune=lora", "trainer.batch_size=4", "trainer.max_steps=7")
    assert ran.status == 0, ran.err
    assert ran.record["training"]["optimiser_steps"] == 7
    assert ran.record["selection"]["epoch"] == 0


@pytest.mark.parametrize(
    ("setting", "expected"),
    [("trainer.precision=16-mixed", "bf16-mixed"), ("trainer.accelerator=gpu", "trainer.accelerator=auto")],
)
def test_what_the_machine_cannot_do_is_one_message(train, setting, expected):
    if torch.cuda.is_available():
        pytest.skip("a GPU can do this")
    ran = train("finetune=lora", "trainer.accelerator=cpu", setting)
    assert ran.status == 1
    assert ran.record["status"] == "failed"
    assert expected in ran.out
    assert "Traceback" not in ran.err
    assert "Traceback" in ran.record["error"]["traceback"]


def first_width(ran) -> float:
    row = next(line for line in ran.out.splitlines() if "[" in line)
    low, high = row.partition("[")[2].partition("]")[0].split(", ")
    return float(high) - float(low)
