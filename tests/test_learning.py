"""Learning is real: a handful of examples can be learnt by heart, and tuning beats zero-shot on unseen patients."""

import numpy as np
import pytest
import torch

from vlmbench.backbones.base import Turn
from vlmbench.backbones.loaders import load
from vlmbench.cell.fit import frozen_head
from vlmbench.domains.phantom.build import build_phantom
from vlmbench.modules.contrastive import ContrastiveModule
from vlmbench.tuning.tuners import Full, Lora
from vlmbench.weights.source import ASSETS


def descend(parameters, loss_of, steps, lr):
    parameters = list(parameters)
    optimiser = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0)
    losses = []
    for _ in range(steps):
        optimiser.zero_grad()
        loss = loss_of()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)  # as the trainer does; without it the loss leaps now and then
        optimiser.step()
        losses.append(loss.item())
    return losses


def test_a_dual_encoder_learns_thirty_two_examples_by_heart():
    torch.manual_seed(0)
    domain = build_phantom("w", "dermoscopy", "diagnosis", target="multiclass", n_patients=40, seed=5)
    backbone = load("hf_clip", str(ASSETS / "tiny_clip"), dtype=torch.float32)
    rows = [(i, e, backbone.preprocess(domain.images.load(e.image))) for i, e in enumerate(domain.split("train")[:32])]
    with torch.no_grad():
        head = frozen_head(backbone.features(torch.stack([row[2] for row in rows])), len(domain.label_names))
    Lora("vision", 8, 16.0, 0.0).apply(backbone)
    module = ContrastiveModule(backbone, head, label_count=len(domain.label_names), multi_label=False)
    batch = module.collate(rows)
    assert len(rows) == 32
    losses = descend(module.trainable().values(), lambda: module.part_loss(batch), 60, 5e-3)
    assert losses[-1] < 0.05 * losses[0]


def test_a_generative_model_learns_thirty_two_answers_by_heart():
    torch.manual_seed(0)
    domain = build_phantom("w", "dermoscopy", "vqa", n_patients=40, seed=5)
    backbone = load("hf_vlm", str(ASSETS / "tiny_llava"), dtype=torch.float32, answer_prefix=" ", max_length=256)
    examples = domain.split("train")[:32]
    asked = [Turn(backbone.preprocess(domain.images.load(e.image)), e.question, e.answer) for e in examples]
    Full("VML").apply(backbone)
    batch = backbone.collate(asked, supervise=True)
    trained = [p for p in backbone.model.parameters() if p.requires_grad]
    losses = descend(trained, lambda: backbone.forward(batch)[0], 100, 1e-3)
    assert losses[-1] < 0.05 * losses[0]
    backbone.eval()
    answers = backbone.generate(backbone.collate(asked, supervise=False), max_new_tokens=12)
    assert np.mean([answer == turn.answer for answer, turn in zip(answers, asked, strict=True)]) > 0.9


@pytest.mark.parametrize("model", ["tiny_clip"])
def test_lora_beats_zero_shot_with_intervals_apart(train, tmp_path, model):
    where = [f"model={model}", "domain=phantom_radiograph"]
    tuned = train(*where, "finetune=lora", output=tmp_path / "lora", small=False)
    shelf = train(*where, "finetune=zero_shot", output=tmp_path / "zero", small=False)
    assert tuned.record["metrics"]["auroc"]["low"] > shelf.record["metrics"]["auroc"]["high"]


def test_the_specialist_answers_closed_questions_better_than_the_majority_answer(train):
    ran = train("model=tiny_llava_med", "finetune=zero_shot", "domain=phantom_dermoscopy", small=False)
    metrics = ran.record["metrics"]
    assert metrics["closed_accuracy"]["value"] > metrics["closed_majority"]["value"]
