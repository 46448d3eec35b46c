"""Row 3: LoRA training against HF `Trainer` with PEFT, contrastive and generative, on equal loss curves.

python scripts/bench/trainer_hf.py                      # both families, small on the CPU and large on a GPU
python scripts/bench/trainer_hf.py --family generative
python scripts/bench/trainer_hf.py --device cuda --large    # LLaVA of 7B size, random weights, in bfloat16

Both sides train the same network, with the same adapter, from the same state, on the same batches in the same order,
with the same collation, AdamW settings, clipping and schedule. Ours is the LightningModule under the trainer of a cell,
theirs is `transformers.Trainer`. Peak memory is that of each side in a process of its own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from measure import Row, Timed, arguments_of, finish
from random_models import random_clip, random_llava
from torch import Tensor, nn
from torch.utils.data import DataLoader, SequentialSampler

from vlmbench.backbones.base import Turn
from vlmbench.backbones.contrastive.dual import cast
from vlmbench.cell.fit import frozen_head
from vlmbench.cell.trainer import make_trainer
from vlmbench.config import schema
from vlmbench.domains.base import Example
from vlmbench.modules.base import Optimisation, TunedModule
from vlmbench.modules.callbacks import BatchSeed, GradientGuard, Progress
from vlmbench.modules.contrastive import ContrastiveModule
from vlmbench.modules.generative import GenerativeModule
from vlmbench.modules.micro import MicroBatches
from vlmbench.modules.prompting import vqa
from vlmbench.tuning.lora_linear import Linear, QuickLinear, quicken
from vlmbench.tuning.tuners import Lora

OPTIMISATION = Optimisation(lr=2e-4, warmup=0.0, schedule="constant")
CLIP_NORM = 1.0
QUESTION_WORDS, ANSWER_WORDS = (6, 25), (4, 40)  # of open questions; half are closed and answered by one word
BARS = {"contrastive": "1.05", "generative": "1.3"}


@dataclass
class Race:
    """What both sides train.

    Attributes:
        module: Ours.
        theirs: The same network as `Trainer` takes it, which returns a loss.
        rows: Of the data set, in order.
        collate: From rows to what `theirs` takes.
        batch_size: Rows of a batch.
        device: Where.
        half: Compute in bfloat16 under autocast.
    """

    module: TunedModule
    theirs: nn.Module
    rows: Sequence[Any]
    collate: Callable[[list[Any]], dict[str, Tensor]]
    batch_size: int
    device: str
    half: bool


@dataclass
class Run:
    """Loss of each step, and the seconds of each but the first two, which set things up."""

    losses: list[float]
    seconds: list[float]


class Classifier(nn.Module):
    """A vision tower with a linear head, for `Trainer`."""

    def __init__(self, backbone: Any, head: nn.Module) -> None:
        super().__init__()
        self.tower, self.head, self._features = backbone.model, head, backbone.features

    def forward(self, pixels: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return loss and logits."""
        logits = self.head(self._features(pixels))
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def contrastive(options: argparse.Namespace) -> Race:
    """Return a CLIP with a linear head over 7 classes."""
    torch.manual_seed(0)
    backbone = random_clip(*sizes(options))
    side = backbone.model.config.vision_config.image_size
    count = options.steps * options.batch
    images = torch.randn(64, 3, side, side)
    rows = [(i, Example(str(i), "", "", "train", labels=(i * 5 % 7,)), images[i % 64]) for i in range(count)]
    with torch.no_grad():
        placed = cast(images.to(options.device), backbone.model)
        head = frozen_head(backbone.features(placed).float().cpu(), 7)
    Lora("vision", 8, 16.0, 0.0).apply(backbone)
    module = ContrastiveModule(backbone, head, label_count=7, multi_label=False, optimisation=OPTIMISATION)

    def collate(rows: list[Any]) -> dict[str, Tensor]:
        labels = torch.tensor([example.labels[0] for _, example, _ in rows])
        return {"pixels": torch.stack([pixels for *_, pixels in rows]), "labels": labels}

    return Race(module, Classifier(backbone, head), rows, collate, options.batch, options.device, options.large)


def generative(options: argparse.Namespace) -> Race:
    """Return a LLaVA with a vocabulary of 32,000 words, and questions and answers as long as those of VQA sets."""
    torch.manual_seed(0)
    backbone = random_llava(*sizes(options))
    side = backbone.config.vision_config.image_size
    image = backbone.preprocess(picture(side))
    random, words = torch.Generator().manual_seed(1), ["lesion", "left", "is", "the", "in", "round", "no", "image"]

    def text(low: int, high: int) -> str:
        length = int(torch.randint(low, high + 1, (), generator=random))
        return " ".join(words[int(torch.randint(len(words), (), generator=random))] for _ in range(length))

    rows = []
    for i in range(options.steps * options.batch):
        answer = text(*ANSWER_WORDS) if i % 2 else words[6]
        rows.append((i, Example(str(i), "", "", "train", question=text(*QUESTION_WORDS), answer=answer), image))
    Lora("ML", 8, 16.0, 0.0).apply(backbone)
    ask = vqa("{question}", "{question}", "{question}")
    module = GenerativeModule(backbone, ask, mode="vqa", optimisation=OPTIMISATION)

    def collate(rows: list[Any]) -> dict[str, Tensor]:
        turns = [Turn(pixels, query.prompt, query.answer) for _, e, pixels in rows for query in ask(e)]
        return backbone.collate(turns, supervise=True)

    return Race(module, backbone.model, rows, collate, options.batch, options.device, options.large)


def sizes(options: argparse.Namespace) -> tuple[str, str, torch.dtype]:
    """Return size, device and type of the frozen weights."""
    return ("large", options.device, torch.bfloat16) if options.large else ("small", options.device, torch.float32)


def picture(side: int) -> Any:
    """Return a grey image."""
    from PIL import Image

    return Image.new("RGB", (side, side), (90, 120, 60))


class Clock(L.Callback):
    """Loss and end of each step."""

    def __init__(self) -> None:
        self.losses: list[Tensor] = []
        self.ends: list[float] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the clock."""
        self.losses.append(outputs["loss"].detach())
        self.ends.append(now(pl_module.device.type))


def ours(race: Race) -> Run:
    """Train under the trainer of a cell."""
    quicken(race.theirs)
    race.module.micro = MicroBatches(checkpointing="auto")
    race.module.train()
    config = schema.TrainerConfig(
        max_epochs=1,
        accelerator=race.device,
        gradient_clip_val=CLIP_NORM,
        precision="bf16-mixed" if race.half else "32-true",
    )
    clock = Clock()
    callbacks = [GradientGuard(), BatchSeed(0), Progress("bench", "val/loss"), clock]
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(config, Path(folder), callbacks, None, deterministic=False, trains=True)
        rows: Any = race.rows
        trainer.fit(race.module, DataLoader(rows, race.batch_size, collate_fn=race.module.collate))
    print(f"ours computed {race.module.micro.facts()}", file=sys.stderr)
    return Run([float(loss) for loss in clock.losses], intervals(clock.ends))


def theirs(race: Race) -> Run:
    """Train by `transformers.Trainer`."""
    import transformers as hf

    losses: list[float] = []
    ends: list[float] = []

    class Watch(hf.TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(now(race.device))

    class InOrder(hf.Trainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            return SequentialSampler(race.rows)

        def log(self, logs: dict[str, float], *_: Any, **__: Any) -> None:
            if "loss" in logs:
                losses.append(float(logs["loss"]))

    for layer in race.theirs.modules():
        if isinstance(layer, QuickLinear):
            layer.__class__ = Linear  # PEFT's own, as it was
    race.theirs.train()
    with tempfile.TemporaryDirectory() as folder:
        arguments = hf.TrainingArguments(
            output_dir=folder,
            num_train_epochs=1,
            per_device_train_batch_size=race.batch_size,
            learning_rate=OPTIMISATION.lr,
            lr_scheduler_type="constant",
            weight_decay=0.0,
            max_grad_norm=CLIP_NORM,
            bf16=race.half,
            use_cpu=race.device == "cpu",
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            label_names=["labels"],
        )
        parts: dict[str, Any] = {"data_collator": race.collate, "train_dataset": race.rows, "callbacks": [Watch()]}
        InOrder(race.theirs, arguments, **parts).train()
    return Run(losses, intervals(ends))


def now(device: str) -> float:
    """Return seconds, when the device has done what it was asked for."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def intervals(ends: Sequence[float]) -> list[float]:
    """Return the seconds between steps, the first two left out."""
    return [end - begin for begin, end in itertools.pairwise(ends[1:])]


SIDES = {"ours": ours, "theirs": theirs}
FAMILIES = {"contrastive": contrastive, "generative": generative}


def peak(family: str, side: str, options: argparse.Namespace) -> float:
    """Return the peak memory in MiB of one side in a process of its own."""
    words = [sys.executable, __file__, "--family", family, "--side", side, "--device", options.device]
    words += ["--steps", str(min(options.steps, 4)), "--batch", str(options.batch), *(["--large"] * options.large)]
    ran = subprocess.run(words, capture_output=True, text=True, check=True)
    return float(json.loads(ran.stdout.splitlines()[-1])["peak_mib"])


def measured(family: str, options: argparse.Namespace) -> Row:
    """Race both sides of a family, and return the row."""
    # First: on Linux the peak of a process begins with what the process that starts it has in memory.
    memory = {side: peak(family, side, options) for side in SIDES}
    race = FAMILIES[family](options)
    start = {name: value.detach().clone() for name, value in race.module.trainable().items()}
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    apart = 0.0
    for repetition in range(options.repetitions):
        runs = {}
        for side in ("ours", "theirs") if repetition % 2 == 0 else ("theirs", "ours"):
            race.module.load_state_dict(start, strict=False)
            race.module.zero_grad()
            runs[side] = SIDES[side](race)
            seconds[side].append(statistics.median(runs[side].seconds))
        pair = [torch.tensor(runs[side].losses) for side in ("ours", "theirs")]
        # In bfloat16 sums in another order differ by its rounding.
        torch.testing.assert_close(*pair, rtol=0, atol=5e-2 if race.half else 1e-4)
        apart = max(apart, float((pair[0] - pair[1]).abs().max()))
        print(f"{family} {repetition + 1}/{options.repetitions}: {seconds['ours'][-1]:.3f} s a step, "
              f"theirs {seconds['theirs'][-1]:.3f} s", flush=True)  # fmt: skip
    size = sum(p.numel() for p in race.module.parameters()) / 1e6
    row = Row(
        3,
        f"{family} LoRA training",
        "HF Trainer + PEFT",
        f"{options.device}, {torch.get_num_threads()} threads, {size:.0f} M parameters, batch {options.batch}, "
        f"{options.steps} steps, {'bfloat16' if race.half else 'float32'}",
        f"loss of each step within {apart:.1e}",
        bar=BARS[family],
        figures={"ours_peak_mib": memory["ours"], "baseline_peak_mib": memory["theirs"]},
    )
    return Timed(seconds["ours"], seconds["theirs"]).into(row)


def unmeasured(family: str) -> Row:
    """Return the row of a GPU where there is none."""
    note = "not measured: no GPU here"
    return Row(3, f"{family} LoRA training", "HF Trainer + PEFT", "GPU", "", BARS[family], note=note)


def main() -> None:
    """Measure and print."""
    parser = arguments_of(__doc__)
    parser.add_argument("--family", choices=sorted(FAMILIES), action="append")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--device", choices=["cpu", "cuda"], help="left out: small on cpu, large on cuda")
    parser.add_argument("--large", action="store_true", help="CLIP ViT-L/14 and a LLaVA of 7B size, in bfloat16")
    parser.add_argument("--side", choices=sorted(SIDES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.steps < 3:
        parser.error("--steps: the first two are not timed, so there have to be 3")
    families = options.family or sorted(FAMILIES)
    if options.side:
        SIDES[options.side](FAMILIES[families[0]](options))
        mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"peak_mib": torch.cuda.max_memory_allocated() / 2**20 if options.device == "cuda" else mib}))
        return
    rows = []
    for device, large in [(options.device, options.large)] if options.device else [("cpu", False), ("cuda", True)]:
        here = argparse.Namespace(**{**vars(options), "device": device, "large": large})
        missing = device == "cuda" and not torch.cuda.is_available()
        rows += [unmeasured(family) if missing else measured(family, here) for family in families]
    finish(rows, options.json)


if __name__ == "__main__":
    main()
