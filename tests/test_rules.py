"""The rules that the field learned the hard way, each by a test that fails when the rule is broken."""

import dataclasses
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from vlmbench.backbones.base import Turn
from vlmbench.backbones.contrastive.clip import HfClip
from vlmbench.backbones.generative.native import IGNORE
from vlmbench.backbones.loaders import load
from vlmbench.cell import work
from vlmbench.domains.datamodule import DomainDataModule
from vlmbench.domains.phantom.build import build_phantom
from vlmbench.records.claim import claim
from vlmbench.records.identity import identity
from vlmbench.tuning.lora import targeted
from vlmbench.tuning.parameters import without_gradient
from vlmbench.tuning.tuners import Full, Lora
from vlmbench.weights.locate import content_digest, locate
from vlmbench.weights.source import ASSETS, Source


def clip(source="package:tiny_clip"):
    return load("hf_clip", locate(Source(source)), dtype=torch.float32)


def llava(name="tiny_llava", **settings):
    settings = {"answer_prefix": " ", "max_length": 256, **settings}
    return load("hf_vlm", str(ASSETS / name), dtype=torch.float32, **settings)


def turns(backbone, count, **more):
    domain = build_phantom("w", "radiograph", "vqa", n_patients=60, seed=3, **more)
    rows = domain.examples[:count]
    return [Turn(backbone.preprocess(domain.images.load(row.image)), row.question, row.answer) for row in rows]


# ----------------------------------------------------------------------------------------------------- 1. it trained


def test_features_without_gradient_stop_the_run_and_name_the_tensors(train, monkeypatch):
    features = HfClip.features
    monkeypatch.setattr(HfClip, "features", torch.no_grad()(features))
    ran = train("finetune=lora")
    assert ran.status == 1
    assert ran.record["status"] == "failed"
    assert ran.record["error"]["type"] == "UntrainedError"
    assert "lora_A" in ran.record["error"]["message"]
    assert "missing" in ran.record["error"]["message"]


def test_a_tuning_that_changes_nothing_stops_the_run(train):
    ran = train("finetune=full", "finetune.lr=0")
    assert ran.status == 1
    assert "same output as the untuned" in ran.record["error"]["message"]


def test_too_few_steps_prove_nothing(train):
    ran = train("finetune=lora", "trainer.max_steps=1")
    assert ran.status == 1
    assert "too few to show" in ran.record["error"]["message"]


def test_every_fault_of_a_gradient_is_named():
    good, missing, zero, broken, frozen = (torch.nn.Parameter(torch.ones(2)) for _ in range(5))
    frozen.requires_grad_(False)
    good.grad, zero.grad = torch.tensor([0.0, 1.0]), torch.zeros(2)
    broken.grad = torch.tensor([1.0, torch.nan])
    named = {"good": good, "missing": missing, "zero": zero, "broken": broken, "frozen": frozen}
    assert without_gradient(named.items()) == {"missing": "missing", "zero": "zero", "broken": "not finite"}


@pytest.mark.parametrize("tuner", [Lora("ML", 4, 8.0, 0.0), Lora("M", 4, 8.0, 0.0), Full("M")], ids=str)
def test_what_trains_on_a_half_precision_backbone_is_float32_and_comes_back_exactly(tuner, tmp_path):
    first, second = (load("hf_vlm", str(ASSETS / "tiny_llava"), dtype=torch.bfloat16) for _ in range(2))
    tuner.apply(first)
    trained = {name: p for name, p in first.model.named_parameters() if p.requires_grad}
    assert {p.dtype for p in trained.values()} == {torch.float32}
    assert {p.dtype for name, p in first.model.named_parameters() if name not in trained} == {torch.bfloat16}
    with torch.no_grad():
        for p in trained.values():
            p.add_(torch.randn(p.shape) * 1e-4)  # less than bfloat16 can hold
    tuner.save(first, tmp_path)
    tuner.load(second, tmp_path)
    restored = dict(second.model.named_parameters())
    for name, p in trained.items():
        assert torch.equal(p, restored[name]), name
    assert not any(p.requires_grad for p in restored.values())


# ------------------------------------------------------------------------------- 2. supervised where it should be


@pytest.mark.parametrize("name", ["tiny_llava", "tiny_llava_med"])
def test_labels_decode_to_exactly_the_answers_and_the_end_token(name):
    backbone = llava(name)
    asked = turns(backbone, 48)
    batch = backbone.collate(asked, supervise=True)
    end = backbone.tokenizer.eos_token
    for row, turn in zip(batch["labels"].tolist(), asked, strict=True):
        supervised = [token for token in row if token != IGNORE]
        assert backbone.tokenizer.decode(supervised) == f" {turn.answer}{end}"
    assert (batch["labels"][batch["attention_mask"] == 0] == IGNORE).all()
    assert (batch["labels"][batch["input_ids"] == backbone.image_token_id] == IGNORE).all()
    assert ((batch["input_ids"] == backbone.image_token_id).sum(1) == 64).all()


def test_the_prompt_of_training_is_token_for_token_the_one_of_generation():
    backbone = llava()
    (turn,) = turns(backbone, 1)
    supervised = backbone.collate([turn], supervise=True)
    prompt = backbone.collate([turn], supervise=False)["input_ids"][0].tolist()
    assert supervised["input_ids"][0, : len(prompt)].tolist() == prompt


def test_a_row_that_is_too_long_is_an_error_and_never_cut():
    backbone = llava(max_length=72)
    (turn,) = turns(backbone, 1)
    with pytest.raises(ValueError, match=r"max_length=72"):
        backbone.collate([turn], supervise=True)


def test_a_question_with_an_image_token_is_refused():
    backbone = llava()
    (turn,) = turns(backbone, 1)
    with pytest.raises(ValueError, match="2 image tokens"):
        backbone.collate([Turn(turn.pixels, "what is <image> here?")], supervise=False)


def test_the_image_tokens_are_those_of_the_processor_itself():
    backbone = llava()
    domain = build_phantom("w", "radiograph", "vqa", n_patients=10, seed=3)
    image = domain.images.load(domain.examples[0].image)
    content = [{"type": "image"}, {"type": "text", "text": "is this normal?"}]
    text = backbone.processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    expected = backbone.processor(text=text, images=image, return_tensors="pt")
    assert expected["input_ids"][0].tolist() == backbone.prompt_ids("is this normal?", 64)
    ours = backbone.preprocess(image).tensors["pixel_values"]
    torch.testing.assert_close(expected["pixel_values"], ours, rtol=0, atol=0)


# ------------------------------------------------------------------------------- 3. batches do not change answers


@pytest.mark.parametrize("name", ["tiny_llava", "tiny_llava_med"])
def test_sixty_four_prompts_answer_alike_alone_and_in_batches_of_sixteen(name):
    backbone = llava(name)
    backbone.eval()
    asked = turns(backbone, 64)
    lengths = {len(backbone.prompt_ids(turn.prompt, 64)) for turn in asked}
    assert len(lengths) > 4
    alone = [backbone.generate(backbone.collate([turn], supervise=False), max_new_tokens=12)[0] for turn in asked]
    together = []
    for start in range(0, 64, 16):
        batch = backbone.collate(asked[start : start + 16], supervise=False)
        together += backbone.generate(batch, max_new_tokens=12)
    assert together == alone
    assert len(set(alone)) > 3


def test_option_scores_do_not_depend_on_the_batch():
    backbone = llava()
    backbone.eval()
    asked = turns(backbone, 6)
    options = [("yes", "no"), ("left", "right", "the upper left lung")] * 3
    together = backbone.score(asked, options)
    alone = [backbone.score([turn], [row])[0] for turn, row in zip(asked, options, strict=True)]
    for row, single, choice in zip(together, alone, options, strict=True):
        torch.testing.assert_close(row[: len(choice)], single, rtol=1e-4, atol=1e-4)
    assert torch.isinf(together[0, 2])


# ---------------------------------------------------------------------------------------- 4. test is touched once


def test_the_test_split_is_read_once_and_last(train, monkeypatch):
    touched = []
    rows = DomainDataModule.rows

    def spied(self, split):
        touched.append(split)
        return rows(self, split)

    monkeypatch.setattr(DomainDataModule, "rows", spied)
    # It looks at a few rows of every split when all is predicted and scored, and decides nothing.
    monkeypatch.setattr(work, "flops", lambda *_: touched.append("operations"))
    ran = train("finetune=lora", "domain.audit_hashes=false")
    assert ran.status == 0
    assert (ran.cells[0] / "predictions.parquet").exists()
    assert touched.count("test") == 1
    assert touched[-2:] == ["test", "operations"]
    assert "val" in touched


def test_no_patient_is_in_two_splits_and_the_audit_says_so(train):
    ran = train("finetune=zero_shot")
    audit = ran.record["data"]["audit"]
    for pair in ("train-val", "train-test", "val-test"):
        assert audit[pair]["groups"] == audit[pair]["images"] == audit[pair]["pixels"] == 0


# ------------------------------------------------------------------------------ 6. LoRA goes where the scope says


@pytest.mark.parametrize(
    ("scope", "prefixes", "layers"),
    [
        ("V", {"model.vision_tower"}, 3 * 6),
        ("L", {"model.language_model"}, 3 * 7),
        ("VL", {"model.vision_tower", "model.language_model"}, 3 * 6 + 3 * 7),
        ("M", set(), 0),
        ("ML", {"model.language_model"}, 3 * 7),
    ],
)
def test_lora_is_in_the_parts_of_the_scope_and_nowhere_else(scope, prefixes, layers):
    backbone = llava()
    Lora(scope, 4, 8.0, 0.0).apply(backbone)
    paths = targeted(backbone.model) if prefixes else []
    assert {".".join(path.split(".")[:2]) for path in paths} == prefixes
    assert len(paths) == layers
    # The connector reads the last layer but one: what lies above it would get no gradient.
    assert not [path for path in paths if path.startswith("model.vision_tower.encoder.layers.3")]
    trained = {name for name, p in backbone.model.named_parameters() if p.requires_grad}
    assert any("multi_modal_projector" in name for name in trained) == ("M" in scope)


@pytest.mark.parametrize(("scope", "layers"), [("vision", 24), ("text", 12), ("vision+text", 36)])
def test_lora_in_a_dual_encoder_keeps_to_its_towers(scope, layers):
    backbone = clip()
    Lora(scope, 4, 8.0, 0.0).apply(backbone)
    paths = targeted(backbone.model)
    assert len(paths) == layers
    assert {path.split("_model")[0] for path in paths} == set(scope.split("+"))


# ------------------------------------------------------ 7. preprocessing is the model's own, and part of every key


def test_another_normalisation_is_another_input_and_another_identity(tmp_path):
    shutil.copytree(ASSETS / "tiny_clip", tmp_path / "other")
    path = tmp_path / "other" / "processor_config.json"
    settings = json.loads(path.read_text())
    settings["image_processor"]["image_mean"] = [0.1, 0.2, 0.3]
    path.write_text(json.dumps(settings))
    domain = build_phantom("w", "fundus", "vqa", n_patients=10, seed=3)
    image = domain.images.load(domain.examples[0].image)
    own, other = clip(), clip(str(tmp_path / "other"))
    shift = (own.preprocess(image) - other.preprocess(image)).mean((1, 2))
    std = torch.tensor(own.processor.image_processor.image_std)
    expected = (torch.tensor([0.1, 0.2, 0.3]) - torch.tensor(own.processor.image_processor.image_mean)) / std
    torch.testing.assert_close(shift, expected, atol=1e-5, rtol=1e-5)
    folders = [str(ASSETS / "tiny_clip"), str(tmp_path / "other")]
    assert len({content_digest(Source(folder), folder) for folder in folders}) == 2


# --------------------------------------------------------------------------- 8. a run's identity is its content


def test_identity_is_what_determines_the_result_and_nothing_else():
    from vlmbench.config import schema

    config = dataclasses.asdict(
        schema.CellConfig(
            model=schema.ContrastiveModelConfig(name="m", source="a"),
            task=schema.DiagnosisTaskConfig(),
            finetune=schema.LoraConfig(lr=1e-3, scope="vision"),
            domain=schema.FolderDomainConfig(name="d", root="/here", modality="oct"),
        )
    )
    name = identity(config, data="d", weights="w")

    def changed(path, value, **kwargs):
        other = json.loads(json.dumps(config))
        *parents, leaf = path.split(".")
        node = other
        for parent in parents:
            node = node[parent]
        assert node[leaf] != value
        node[leaf] = value
        return identity(other, **{"data": "d", "weights": "w", **kwargs}) != name

    for path, value in [("output", "x"), ("domain.root", "/there"), ("trainer.num_workers", 3), ("model.source", "b")]:
        assert not changed(path, value), path
    for path, value in [("logger.name", "wandb"), ("sweep.name", "mine"), ("task.resamples", 7), ("model.role", "x")]:
        assert not changed(path, value), path
    for path, value in [("finetune.lr", 1.0), ("seed", 1), ("trainer.max_epochs", 3), ("domain.label_map", {"a": "b"})]:
        assert changed(path, value), path
    assert identity(config, data="other", weights="w") != name
    assert identity(config, data="d", weights="other") != name


def test_a_killed_cell_resumes_and_ends_as_if_it_had_not_been(train, tmp_path):
    settings = ["finetune=lora", "domain.patients=24", "trainer.max_epochs=6", "trainer.batch_size=2"]
    settings += ["domain.audit_hashes=false", "trainer.patience=50", "task.resamples=100"]
    command = [sys.executable, "-m", "vlmbench.train", *settings, f"output={tmp_path / 'killed'}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 180
    while not list(tmp_path.glob("killed/*/*/checkpoints/best*.ckpt")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(tmp_path.glob("killed/*/*/record.json"))
    resumed = train(*settings, output=tmp_path / "killed", small=False)
    whole = train(*settings, output=tmp_path / "whole", small=False)
    assert resumed.status == whole.status == 0
    assert resumed.record["training"]["resumed"] is True
    assert whole.record["training"]["resumed"] is False
    assert resumed.record["training"]["curve"] == whole.record["training"]["curve"]
    assert (resumed.cells[0] / "predictions.parquet").read_bytes() == (
        whole.cells[0] / "predictions.parquet"
    ).read_bytes()
    assert not (resumed.cells[0] / "checkpoints").exists()


def test_a_cell_that_is_running_is_left_alone(train):
    (cell,) = train("finetune=zero_shot").cells
    (cell / "record.json").unlink()
    with claim(cell):
        ran = train("finetune=zero_shot")
    assert ran.status == 3
    assert "running elsewhere" in ran.err
    assert str(os.getpid()) in ran.err
    assert not (cell / "record.json").exists()


def test_a_failed_cell_says_so_and_can_be_run_again(train, monkeypatch):
    def broken(self, image):
        raise RuntimeError("the disk is on fire")

    with monkeypatch.context() as patch:
        patch.setattr(HfClip, "preprocess", broken)
        ran = train("finetune=zero_shot")
    assert ran.status == 1
    assert ran.record["error"]["message"] == "the disk is on fire"
    assert "Traceback" in ran.record["error"]["traceback"]
    assert train("finetune=zero_shot").status == 0
    assert ran.record["status"] == "done"


# -------------------------------------------------------------------------- 10. nothing is executed from data


class Bomb:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_pickle_among_the_weights_is_not_executed(tmp_path, train):
    shutil.copytree(ASSETS / "tiny_clip", tmp_path / "bad")
    (tmp_path / "bad" / "model.safetensors").unlink()
    with (tmp_path / "bad" / "pytorch_model.bin").open("wb") as handle:
        pickle.dump({"logit_scale": Bomb(tmp_path / "executed")}, handle)
    ran = train(f"model.source={tmp_path / 'bad'}", "finetune=zero_shot")
    assert ran.status == 1
    assert ran.record["status"] == "failed"
    assert not (tmp_path / "executed").exists()


def test_a_checkpoint_with_a_pickle_is_not_executed(tmp_path, train, monkeypatch):
    from vlmbench.cell import fit

    with monkeypatch.context() as patch:
        patch.setattr(fit.GradientGuard, "on_train_end", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        interrupted = train("finetune=lora")
        assert interrupted.status == 130
        assert "the same command goes on where it stopped" in interrupted.err
    (best,) = tmp_path.glob("runs/*/*/checkpoints/best*.ckpt")
    state = torch.load(best, weights_only=True)
    state["callbacks"]["bomb"] = Bomb(tmp_path / "executed")
    torch.save(state, best)
    ran = train("finetune=lora")
    assert ran.status == 1
    assert not (tmp_path / "executed").exists()
    assert "weights_only" in ran.record["error"]["traceback"]


def test_saved_adapters_are_safetensors_alone(train):
    (cell,) = train("finetune=lora").cells
    names = sorted(path.name for path in (cell / "saved").rglob("*") if path.is_file())
    assert names == ["README.md", "adapter_config.json", "adapter_model.safetensors", "head.safetensors"]
    assert np.isfinite(json.loads((cell / "record.json").read_text())["training"]["output_change"])
