"""Row 6: training a contrastive cell by LoRA, against a hand-written PyTorch loop with nothing around it.

python scripts/bench/plain_loop.py              # two epochs of a small CLIP on a phantom domain
python scripts/bench/plain_loop.py --tiny       # the tiny checkpoint, where a step takes milliseconds

Ours is `fit` as a cell calls it: seeding of each batch, the proof that it trains, running means, validation with AUROC,
early stopping, checkpoints, selection. The loop has the model, fused AdamW with the same schedule and clipping, a
DataLoader over the same rows in memory, and one pass over the validation split an epoch.
"""

from __future__ import annotations

import copy
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from measure import Row, arguments_of, finish, in_turn
from torch import Tensor
from torch.nn import functional
from torch.utils.data import BatchSampler, DataLoader

from vlmbench.backbones.contrastive.dual import HfDual
from vlmbench.cell.build import build_backbone, build_module, build_tuner, optimisation_of
from vlmbench.cell.domain import build_domain
from vlmbench.cell.fit import fit, frozen_head
from vlmbench.cell.work import build_data
from vlmbench.config import schema
from vlmbench.config.entry import compose
from vlmbench.domains.datamodule import DomainDataModule
from vlmbench.domains.epochs import EpochSampler
from vlmbench.modules.base import TunedModule


def main() -> None:
    """Measure and print."""
    parser = arguments_of(__doc__)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--patients", type=int, default=250)
    parser.add_argument("--tiny", action="store_true", help="the tiny checkpoint instead of a small random one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = configured(folder, options.epochs, options.patients)
        module, data = cell(config, tiny=options.tiny)
        start = {name: value.detach().clone() for name, value in module.trainable().items()}
        runs = iter(range(10**6))

        def ours() -> list[float]:
            restore(module, start)
            _, facts = fit(config, module, data, Path(folder) / str(next(runs)), "bench", None)
            return [epoch["train/loss"] for epoch in facts["curve"]]

        def baseline() -> list[float]:
            restore(module, start)
            return loop(config, module, data)

        steps = options.epochs * len(data.train_dataloader())
        baseline()  # the images are decoded, the threads are there
        timed = in_turn(ours, baseline, options.repetitions, same_curve)
    row = timed.into(
        Row(
            6,
            "`fit` of a contrastive LoRA cell, with validation, checkpoints and selection",
            "hand-written PyTorch loop",
            f"CPU, {torch.get_num_threads()} threads, {sum(p.numel() for p in module.parameters()) / 1e6:.1f} M "
            f"parameters, {config.trainer.batch_size} images a batch, {steps} steps",
            "loss of each epoch within 1e-5",
            bar="0.95",
        )
    )
    row.figures["ours_more_ms_per_step"] = (row.figures["ours_s"] - row.figures["baseline_s"]) / steps * 1e3
    finish([row], options.json)


def configured(folder: str, epochs: int, patients: int) -> schema.CellConfig:
    """Return the configuration of the cell."""
    sys.argv = [
        "vlmbench.train",
        *("model=tiny_clip", "finetune=lora", "finetune.dropout=0", "finetune.lr=1e-4", "domain=phantom_dermoscopy"),
        *(f"domain.patients={patients}", f"trainer.max_epochs={epochs}", "trainer.patience=100"),
        *("trainer.accelerator=cpu", f"output={folder}", "deterministic=false"),
    ]
    config: schema.CellConfig = compose("train", "").configs[0]
    return config


def cell(config: schema.CellConfig, *, tiny: bool) -> tuple[TunedModule, DomainDataModule]:
    """Return the module of a cell and its data, as a cell makes them."""
    torch.manual_seed(0)
    domain = build_domain(config.domain, "diagnosis")
    backbone = build_backbone(config.model, precision="32-true", trains_all=False, lock=config.lock)
    if not tiny:
        backbone = larger(backbone)
    data = build_data(config, domain, backbone)
    with torch.no_grad():
        rows = data.rows("train")
        pixels = torch.stack([pixels for *_, pixels in (rows[row] for row in range(min(64, len(rows))))])
        head = frozen_head(backbone.features(pixels), len(domain.label_names))
    build_tuner(config.finetune).apply(backbone)
    module = build_module(config, domain, backbone, head)
    data.collate = module.collate
    return module, data


def larger(backbone: Any) -> HfDual:
    """Return a dual encoder of the same kind with random weights, whose steps take as long as a small real one's."""
    settings = copy.deepcopy(backbone.model.config)
    vision = settings.vision_config
    vision.hidden_size, vision.intermediate_size, vision.num_hidden_layers, vision.num_attention_heads = 256, 1024, 6, 4
    return type(backbone)(type(backbone.model)(settings), backbone.processor)


def restore(module: TunedModule, start: dict[str, Tensor]) -> None:
    """Put back what had not been trained yet."""
    module.load_state_dict(start, strict=False)
    module.zero_grad()


def loop(config: schema.CellConfig, module: Any, data: DomainDataModule) -> list[float]:
    """Train by hand, and return the mean loss of each epoch."""
    backbone, head = module.backbone, module.classifier
    optimisation = optimisation_of(config.finetune)
    assert optimisation is not None  # LoRA has one
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": optimisation.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=optimisation.lr, fused=True)
    rows, sampler = data.rows("train"), EpochSampler(data.rows("train"), config.seed)
    batches = BatchSampler(sampler, config.trainer.batch_size, drop_last=False)
    loader: DataLoader[Any] = DataLoader(rows, batch_sampler=batches, collate_fn=stacked)
    validation: DataLoader[Any] = DataLoader(data.rows("val"), config.trainer.eval_batch_size, collate_fn=stacked)
    total = config.trainer.max_epochs * len(loader)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: optimisation.factor(step, total))
    curve = []
    for epoch in range(config.trainer.max_epochs):
        sampler.set_epoch(epoch)
        module.train()
        total_loss = torch.zeros(())
        for pixels, targets in loader:
            loss = functional.cross_entropy(head(backbone.features(pixels)), targets)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, config.trainer.gradient_clip_val)
            optimiser.step()
            schedule.step()
            total_loss += loss.detach() * len(targets)
        curve.append(float(total_loss) / len(rows))
        module.eval()
        with torch.no_grad():
            torch.cat([head(backbone.features(pixels)) for pixels, _ in validation])
    return curve


def stacked(rows: list[Any]) -> tuple[Tensor, Tensor]:
    """Return pixels (B, 3, H, W) and labels (B,)."""
    return torch.stack([pixels for *_, pixels in rows]), torch.tensor([example.labels[0] for _, example, _ in rows])


def same_curve(ours: list[float], baseline: list[float]) -> None:
    """Hold the loss curves together.

    Raises:
        AssertionError: They differ.
    """
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(baseline), rtol=0, atol=1e-5)
    if not ours[-1] < ours[0]:
        raise AssertionError(f"nothing was learnt: {ours}")


if __name__ == "__main__":
    main()
