"""A training step is the same one however it is computed: in parts, with less memory, by other kernels."""

import copy
import itertools
import logging
import re
import subprocess
import sys
from dataclasses import replace
from typing import Any

import lightning as L
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.data import DataLoader

from vlmbench.backbones.attention import set_attention
from vlmbench.backbones.loaders import load
from vlmbench.cell.fit import frozen_head
from vlmbench.cell.trainer import make_trainer
from vlmbench.config import schema
from vlmbench.domains.phantom.build import build_phantom
from vlmbench.errors import UserError
from vlmbench.modules.base import Optimisation
from vlmbench.modules.callbacks import BatchSeed, GradientGuard
from vlmbench.modules.contrastive import ContrastiveModule
from vlmbench.modules.generative import GenerativeModule
from vlmbench.modules.layers import checkpoint_layers, compile_layers, layers_of, release_layers
from vlmbench.modules.micro import STATE, MicroBatches, cut, padded
from vlmbench.modules.optimiser import adamw, can_be_fused
from vlmbench.modules.prompting import vqa
from vlmbench.tuning.lora_linear import QuickLinear, quicken
from vlmbench.tuning.tuners import Lora
from vlmbench.weights.source import ASSETS

ANSWERS = ("yes", "no, there is none, but on the left side there is a small one", "melanoma", "3 cm and round")
OPTIMISATION = Optimisation(lr=1e-3, weight_decay=0.1, schedule="constant")


def rows_of(domain, backbone, count):
    """Return rows whose answers differ much in length."""
    images = [(e, backbone.preprocess(domain.images.load(e.image))) for e in domain.split("train")[:count]]
    answers = itertools.cycle(ANSWERS)
    return [(i, replace(e, answer=next(answers)), pixels) for i, (e, pixels) in enumerate(images)]


def generative(dropout=0.0):
    """Return a module and the rows of three batches."""
    torch.manual_seed(0)
    domain = build_phantom("w", "dermoscopy", "vqa", n_patients=6, seed=5)
    backbone = load("hf_vlm", str(ASSETS / "tiny_llava"), dtype=torch.float32, answer_prefix=" ", max_length=256)
    rows = rows_of(domain, backbone, 11)
    Lora("ML", 4, 8.0, dropout).apply(backbone)
    ask = vqa("{question}", "{question}", "{question}")
    return GenerativeModule(backbone, ask, mode="vqa", optimisation=OPTIMISATION), [rows[:5], rows[5:10], rows[10:]]


def contrastive():
    """Return a module and the rows of three batches."""
    torch.manual_seed(0)
    domain = build_phantom("w", "dermoscopy", "diagnosis", target="multiclass", n_patients=20, seed=5)
    backbone = load("hf_clip", str(ASSETS / "tiny_clip"), dtype=torch.float32)
    rows = rows_of(domain, backbone, 9)
    with torch.no_grad():
        head = frozen_head(backbone.features(torch.stack([row[2] for row in rows])), len(domain.label_names))
    Lora("vision", 4, 8.0, 0.0).apply(backbone)
    count = len(domain.label_names)
    module = ContrastiveModule(backbone, head, label_count=count, multi_label=False, optimisation=OPTIMISATION)
    return module, [rows[:4], rows[4:8], rows[8:]]


class Losses(L.Callback):
    """The loss of each batch."""

    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.values.append(float(outputs["loss"]) * trainer.accumulate_grad_batches)


def trained(made, tmp_path, micro=None, prepare=lambda module: None, epochs=2, **settings):
    """Train on the batches; return the losses, what has been learnt, and how the batches were cut."""
    module, batches = made
    module.micro = micro or MicroBatches(enabled=False)
    module.train()
    prepare(module)
    losses = Losses()
    collated: Any = [module.collate(rows) for rows in batches]
    config = schema.TrainerConfig(max_epochs=epochs, accelerator="cpu", **settings)
    callbacks = [BatchSeed(3), GradientGuard(), losses]
    trainer = make_trainer(config, tmp_path, callbacks, None, deterministic=True, trains=True)
    trainer.fit(module, DataLoader(collated, batch_size=None))
    return losses.values, {name: p.detach().clone() for name, p in module.trainable().items()}, module.micro


def assert_same(one, other, atol=1e-6):
    assert one[0] == pytest.approx(other[0], abs=atol)
    assert len(set(one[0])) > 2
    for name, value in one[1].items():
        # AdamW's first steps are as long where a gradient is next to nothing.
        torch.testing.assert_close(value, other[1][name], rtol=0, atol=20 * atol)


def test_rows_are_cut_where_padding_costs_least():
    lengths = [10, 90, 12, 88, 11, 50]
    assert cut(lengths, part_cost=0) == [[row] for row in (1, 3, 5, 2, 4, 0)]
    assert cut(lengths, part_cost=20) == [[1, 3], [5], [2, 4, 0]]
    assert cut(lengths, limit=100, part_cost=1000) == [[1], [3], [5], [2, 4, 0]]
    assert cut([500, 3], limit=100) == [[0], [1]]
    assert MicroBatches().split(lengths, "cuda") == [[0, 1, 2, 3, 4, 5]]
    assert MicroBatches(tokens=200).split([90] * 5, "cuda") == [[0], [1, 2], [3, 4]]
    assert MicroBatches().split([1000, 990, 10, 10], "cpu") == [[0, 1], [2, 3]]
    assert MicroBatches().split([100, 99, 98], "cpu") == [[0, 1, 2]]
    for limit in (0, 60, 130, 1000):
        parts = cut(lengths, limit)
        assert sorted(row for part in parts for row in part) == list(range(6))
        assert not limit or all(padded(lengths, [part]) <= limit or len(part) == 1 for part in parts)


@pytest.mark.parametrize("settings", [{}, {"accumulate_grad_batches": 2}, {"precision": "bf16-mixed"}])
def test_parts_make_the_step_of_the_whole_batch(tmp_path, settings):
    whole = trained(generative(), tmp_path, gradient_clip_val=0.1, **settings)
    parts = trained(generative(), tmp_path, MicroBatches(tokens=130), gradient_clip_val=0.1, **settings)
    if settings.get("precision") == "bf16-mixed":
        assert whole[0] == pytest.approx(parts[0], rel=1e-2)
    else:
        assert_same(whole, parts, 1e-5)
    assert parts[2].facts()["micro_batches"] > 2
    assert parts[2].facts()["tokens_saved"] > 0


def run_out(monkeypatch, module, calls):
    """Let memory run out in some calls of the network, after others have left gradients."""
    real, counted = type(module).part_loss, itertools.count()

    def part_loss(self, batch):
        loss = real(self, batch)
        if next(counted) in calls:
            loss.backward()
            raise torch.OutOfMemoryError("planted")
        return loss

    monkeypatch.setattr(type(module), "part_loss", part_loss)


@pytest.mark.parametrize("make", [generative, contrastive])
def test_a_batch_that_does_not_fit_is_begun_again_in_halves(make, tmp_path, monkeypatch, caplog):
    expected = trained(make(), tmp_path, accumulate_grad_batches=2)
    made = make()
    run_out(monkeypatch, made[0], {1, 3})  # the second batch of an accumulation, whole, and the second half of it
    found = trained(made, tmp_path, MicroBatches(), accumulate_grad_batches=2)
    assert_same(expected, found, 1e-5)
    assert found[2].facts()["micro_tokens"] == found[2].limit > 0
    told = re.findall(r"trainer.micro_tokens=(\d+)", caplog.text)
    assert int(told[-1]) == found[2].limit
    assert len(told) == 2
    checkpoint: dict[str, Any] = {"state_dict": {}}
    made[0].on_save_checkpoint(checkpoint)
    fresh = make()[0]
    fresh.on_load_checkpoint(checkpoint)
    assert fresh.micro.limit == checkpoint[STATE]["limit"] == found[2].limit


def test_a_row_that_does_not_fit_is_computed_anew_in_the_backward_pass_and_then_an_error(tmp_path, monkeypatch):
    expected = trained(generative(), tmp_path, epochs=1)
    made = generative()
    run_out(monkeypatch, made[0], {0})
    found = trained(made, tmp_path, MicroBatches(tokens=1, checkpointing="auto"), epochs=1)
    assert_same(expected, found, 1e-5)
    assert found[2].checkpointed
    made = generative()
    monkeypatch.undo()
    run_out(monkeypatch, made[0], {0})
    with pytest.raises(torch.OutOfMemoryError) as error:
        trained(made, tmp_path, MicroBatches(tokens=1))
    assert "A single row" in error.value.__notes__[0]


def test_checkpointed_layers_give_the_same_curve_with_dropout(tmp_path):
    made = generative(dropout=0.2)
    found = trained(made, tmp_path, prepare=lambda module: module.checkpoint_activations())
    assert_same(trained(generative(dropout=0.2), tmp_path), found)
    layers = list(layers_of(made[0].backbone.model))
    assert len(layers) >= 4
    assert all("forward" in vars(layer) for layer in layers)
    release_layers(made[0].backbone.model)
    assert not any("forward" in vars(layer) for layer in layers)


def test_compiled_layers_train_and_others_answer(monkeypatch):
    layers = torch.nn.ModuleList(torch.nn.Sequential(torch.nn.Linear(3, 3)) for _ in "ab")
    model = torch.nn.ModuleDict({"layers": layers})
    monkeypatch.setattr(torch, "compile", lambda forward, dynamic: lambda x: forward(x) + 1)
    compile_layers(model)
    checkpoint_layers(model)
    layer, x = layers[0], torch.ones(2, 3)
    assert torch.allclose(layer(x), layer.eval()(x) + 1)


def test_the_fused_kernel_makes_the_same_steps_and_is_kept_by_a_loaded_state():
    def steps(fused, count, state=None):
        torch.manual_seed(0)
        layer = torch.nn.Linear(7, 5)
        optimiser = adamw([{"params": list(layer.parameters()), "weight_decay": 0.1}], 1e-2, fused=fused)
        if state:
            optimiser.load_state_dict(state)
        losses = []
        for _ in range(count):
            optimiser.zero_grad()
            loss = layer(torch.linspace(-1, 1, 7)).square().sum()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        return losses, optimiser

    plain, fused = steps(False, 8), steps(True, 8)
    assert fused[0] == pytest.approx(plain[0], abs=1e-6)
    assert can_be_fused(torch.nn.Linear(2, 2).parameters(), "32-true")
    assert not can_be_fused(torch.nn.Linear(2, 2).parameters(), "16-mixed")
    for kept, state in ((True, plain[1]), (None, fused[1])):
        loaded = steps(bool(kept), 1, state.state_dict())[1]
        assert [group["fused"] for group in loaded.param_groups] == [kept]
        assert [int(one["step"]) for one in loaded.state.values()] == [9, 9]


def test_the_attention_s_kernel_reaches_every_part():
    module, batches = generative()
    model = module.backbone.model
    batch = module.collate(batches[0])
    before = module.part_loss(batch)
    set_attention(model, "eager")
    assert {m.config._attn_implementation for m in model.modules() if hasattr(m, "set_attn_implementation")} == {
        "eager"
    }
    torch.testing.assert_close(module.part_loss(batch), before)
    with pytest.raises(UserError, match=r"trainer.attention=auto"):
        set_attention(torch.nn.Linear(2, 2), "eager")


@pytest.mark.parametrize("cast", [False, True])
def test_an_update_is_that_of_peft_s_own_layer(cast):
    torch.manual_seed(0)
    dtype = torch.bfloat16 if cast else torch.float32
    frozen = torch.nn.Sequential(torch.nn.Linear(6, 5)).to(dtype)
    config = LoraConfig(r=3, lora_alpha=7, lora_dropout=0.3, target_modules=["0"], init_lora_weights=False)
    theirs = get_peft_model(frozen, config)
    ours = copy.deepcopy(theirs)
    quicken(ours)
    results = []
    for model in (theirs, ours):
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=cast):
            out = model(torch.linspace(-1, 1, 24).view(2, 2, 6).to(dtype))
        out.float().square().sum().backward()
        results.append([out.detach(), *(p.grad for p in model.parameters() if p.requires_grad)])
    torch.testing.assert_close(*results, rtol=3e-2 if cast else 1e-5, atol=3e-2 if cast else 1e-6)
    assert sum(isinstance(layer, QuickLinear) for layer in ours.modules()) == 1
    assert not any(isinstance(layer, QuickLinear) for layer in theirs.modules())
    with ours.disable_adapter():
        assert not torch.equal(ours(torch.ones(2, 6, dtype=dtype)), results[1][0][0])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trainer.attention=flash_attention_2"], "pip install flash-attn"),
        (["trainer.attention=flash"], "sdpa"),
        (["trainer.gradient_checkpointing=yes"], "auto"),
        (["trainer=fsdp", "model=tiny_llava", "task=vqa", "trainer.micro_tokens=9"], "accumulate_grad_batches"),
    ],
)
def test_what_cannot_be_had_is_refused_before_torch_is_imported(words, said):
    code = (
        "import sys, vlmbench.train as t; from vlmbench.config.entry import run\n"
        "try: run(t.main)\nfinally: assert 'torch' not in sys.modules"
    )
    ran = subprocess.run([sys.executable, "-c", code, "finetune=lora", *words], capture_output=True, text=True)
    assert ran.returncode == 2, ran.stderr
    assert said in ran.stderr


def test_the_record_says_by_what_the_steps_were_computed(train, caplog):
    caplog.set_level(logging.WARNING)
    cell = ["model=tiny_llava", "finetune=lora", "domain.patients=12", "trainer.micro_tokens=200"]
    computed = train(*cell, "trainer.attention=eager", "trainer.accelerator=cpu").record["training"]["computed"]
    assert computed["micro_batches"] > 1
    assert (computed["micro_tokens"], computed["attention"], computed["fused_optimiser"]) == (200, "eager", True)
