"""Row 1: the study's probe loop, which decodes and encodes every image in every epoch, against encoding once.

    python scripts/bench/probe_study.py [--train 48 --val 12 --test 12] [--repetitions 2]

Both sides start from JPEG files and a frozen CLIP ViT-B/32 of random weights, and end with the AUROC of a binary
diagnosis on the test files. The study's side has no validation split: it trains on train and val together, ten epochs
of AdamW at 5e-5 with linear decay, batches of 8, on un-normalised features. Ours searches the strength of a converged
probe on val. What the published code evaluates during training is left out of the study's side. Loading the network is
left out of both. Both encode 8 images at a time. Each of our repetitions starts with an empty cache.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from measure import Row, arguments_of, finish, in_turn
from torch import Tensor, nn
from torch.utils.data import DataLoader

from vlmbench.backbones.contrastive.clip import HfClip
from vlmbench.cell import predictions
from vlmbench.cell.features import encode_splits
from vlmbench.cell.fit import fit_probe, frozen_head
from vlmbench.cell.trainer import make_trainer
from vlmbench.config import schema
from vlmbench.domains.base import SPLITS, Domain, Example, Split
from vlmbench.domains.datamodule import DomainDataModule
from vlmbench.domains.folder_images import FolderImages
from vlmbench.domains.phantom.build import build_phantom

EPOCHS, BATCH, LR = 10, 8, 5e-5  # the study's


def rendered(folder: Path, patients: dict[Split, int], side: int) -> Domain:
    """Return a phantom domain of radiographs as JPEG files in a folder."""
    made = build_phantom(
        "phantom", "radiograph", "diagnosis", target="binary", n_patients=patients, seed=0, image_size=side
    )
    examples = []
    for number, example in enumerate(made.examples):
        made.images.load(example.image).save(folder / f"{number}.jpg", quality=95)
        examples.append(dataclasses.replace(example, image=f"{number}.jpg"))
    return dataclasses.replace(made, examples=examples, images=FolderImages(folder))


def clip(small: bool) -> HfClip:
    """Return a frozen CLIP ViT-B/32 of random weights, or one of two layers."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    torch.manual_seed(0)
    layers = {"num_hidden_layers": 2} if small else {}
    model = CLIPModel(CLIPConfig(vision_config=layers, text_config=layers)).eval().requires_grad_(False)
    return HfClip(model, SimpleNamespace(image_processor=CLIPImageProcessor(), tokenizer=None))


def study(domain: Domain, backbone: HfClip) -> dict[str, Any]:
    """Train the head on what is decoded and encoded anew in each epoch; return the metrics on the test files."""

    def batches(examples: Sequence[Example], shuffle: bool) -> DataLoader[Any]:
        def stacked(rows: list[Example]) -> tuple[Tensor, Tensor]:
            pixels = torch.stack([backbone.preprocess(domain.images.load(row.image)) for row in rows])
            return pixels, torch.tensor([row.labels[0] for row in rows])

        return DataLoader(examples, BATCH, shuffle=shuffle, collate_fn=stacked)  # type: ignore[arg-type]

    torch.manual_seed(0)
    head = nn.Linear(backbone.feature_dim, 2)
    training = batches([*domain.split("train"), *domain.split("val")], shuffle=True)
    counts = torch.bincount(torch.tensor([row.labels[0] for row in training.dataset]), minlength=2)  # type: ignore[attr-defined]
    loss_of = nn.CrossEntropyLoss(weight=counts.sum() / (2 * counts))  # inverse frequency
    optimiser = torch.optim.AdamW(head.parameters(), lr=LR, weight_decay=0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, EPOCHS * len(training))
    for _ in range(EPOCHS):
        for pixels, targets in training:
            with torch.no_grad():
                features = backbone.features(pixels)
            loss_of(head(features), targets).backward()
            optimiser.step()
            schedule.step()
            optimiser.zero_grad()
    with torch.no_grad():
        scores = torch.cat([head(backbone.features(pixels)) for pixels, _ in batches(domain.split("test"), False)])
    return metrics(domain, scores)


def ours(domain: Domain, backbone: HfClip, cache: Path) -> dict[str, Any]:
    """Encode each split once and solve the probe for every strength; return the metrics on the test files."""
    config = schema.CellConfig(
        model=schema.ContrastiveModelConfig(name="clip", source="package:clip", role="generalist"),
        task=schema.DiagnosisTaskConfig(),
        finetune=schema.LinearProbeConfig(),
        domain=schema.FolderDomainConfig(name="phantom", modality="radiograph", root="."),
        trainer=schema.TrainerConfig(accelerator="cpu", eval_batch_size=BATCH),
    )
    with tempfile.TemporaryDirectory(dir=cache) as empty:
        os.environ["VLMBENCH_CACHE"] = empty
        kept = config.trainer.pixel_cache_gib
        data = DomainDataModule(
            domain, backbone.preprocess, batch_size=BATCH, eval_batch_size=BATCH, cache=Path(empty), cache_gib=kept
        )
        trainer = make_trainer(config.trainer, Path(empty), [], None, deterministic=True)
        rows, _ = encode_splits(
            *(config, data, backbone, SPLITS),
            weights="random",
            settings="",
            trainer=trainer,
            label="ours",
        )
        head = frozen_head(rows["train"].features, 2)
        features = {split: encoded.features for split, encoded in rows.items()}
        fit_probe(schema.LinearProbeConfig(), domain, features, head, "val/auroc", torch.device("cpu"))
        with torch.no_grad():
            return metrics(domain, head(rows["test"].features))


def metrics(domain: Domain, logits: Tensor) -> dict[str, Any]:
    """Return the AUROC of the test files with its interval, resampled by patient."""
    batch = {"index": list(range(len(logits))), "scores": logits.double().softmax(-1).tolist()}
    frame = predictions.table(domain.split("test"), [batch], domain)
    scored = predictions.score(frame, "diagnosis", multi_label=False, resamples=1000, confidence=0.95)
    return dict(scored["metrics"]["auroc"])


def main() -> None:
    """Measure and print."""
    parser = arguments_of(__doc__)
    parser.set_defaults(repetitions=2)
    for split, patients in (("train", 48), ("val", 12), ("test", 12)):
        parser.add_argument(f"--{split}", type=int, default=patients, help="patients, of 2.25 images on average")
    parser.add_argument("--side", type=int, default=512, help="of the files, in pixels")
    parser.add_argument("--small", action="store_true", help="two layers of CLIP, to try the script")
    asked = parser.parse_args()
    backbone = clip(asked.small)
    pairs: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def check(one: dict[str, Any], other: dict[str, Any]) -> None:
        if None in (*one.values(), *other.values()):
            raise SystemExit("too few patients for an interval of the AUROC: raise --test")
        for value, interval in ((one["value"], other), (other["value"], one)):
            if not interval["low"] <= value <= interval["high"]:
                raise AssertionError(f"AUROC {one} against {other}: one lies outside the other's interval")
        pairs.append((one, other))

    with tempfile.TemporaryDirectory() as scratch:
        files, cache = Path(scratch, "files"), Path(scratch, "cache")
        files.mkdir()
        cache.mkdir()
        domain = rendered(files, {split: getattr(asked, split) for split in SPLITS}, asked.side)
        metrics(domain, torch.zeros(len(domain.split("test")), 2))  # what it imports is of neither side
        timed = in_turn(
            lambda: ours(domain, backbone, cache), lambda: study(domain, backbone), asked.repetitions, check
        )
    one, other = pairs[-1]
    counts = {split: len(domain.split(split)) for split in SPLITS}
    row = Row(
        number=1,
        ours="probe on features encoded once",
        baseline=f"the study's loop: decode and encode in each of {EPOCHS} epochs, AdamW",
        where=f"CPU, {torch.get_num_threads()} threads, ViT-B/32{' of two layers' if asked.small else ''}, "
        f"{counts['train']}/{counts['val']}/{counts['test']} JPEG files of {asked.side} pixels",
        equal=f"test AUROC {one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}] against "
        f"{other['value']:.3f} [{other['low']:.3f}, {other['high']:.3f}]",
        bar="8x",
        note="Train, val and test are encoded once in place of train and val ten times and test once; what remains is "
        "nearly all that one pass.",
    )
    finish([timed.into(row)], asked.json)


if __name__ == "__main__":
    main()
