"""Make the shipped tiny checkpoints: tiny_clip, tiny_medclip, tiny_llava, tiny_llava_med.

Generalists are trained on generic shapes alone, specialists go on from them on four phantom modalities. Every training
is a cell of this project (`python -m vlmbench.train task=pretrain ...`), on worlds whose patients occur in no domain
that is evaluated on. Commands, seed and hashes are written to `vlmbench/assets/PROVENANCE.json`.

  python scripts/make_tiny.py [--work DIR] [--only NAME ...]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from tiny_init import init_clip, init_llava

from vlmbench.cell.build import build_backbone, build_tuner
from vlmbench.config.restore import cell_from_dict
from vlmbench.domains.phantom.build import corpus
from vlmbench.records.store import read_record

ASSETS = Path(__file__).resolve().parents[1] / "vlmbench" / "assets"
SEED = 0
COMMON = [
    "finetune=full",
    "finetune.weight_decay=0.05",
    "finetune.warmup=0.1",
    "trainer.patience=100",
    "trainer.eval_batch_size=128",
    "domain.audit_hashes=false",
    f"seed={SEED}",
]
CLIP = ["task=pretrain", "finetune.scope=vision+text", "trainer.batch_size=128"]
LLAVA = ["finetune.scope=VML", "trainer.batch_size=32"]
# Per checkpoint: its model config, what it starts from, and the trainings, one after the other.
PLAN: dict[str, tuple[str, str, list[list[str]]]] = {
    "tiny_clip": (
        "tiny_clip",
        "new",
        [[*CLIP, "domain=phantom_shapes", "finetune.lr=1e-3", "trainer.max_epochs=12"]],
    ),
    "tiny_medclip": (
        "tiny_medclip",
        "tiny_clip",
        [[*CLIP, "domain=phantom_mixture", "finetune.lr=1e-3", "trainer.max_epochs=15"]],
    ),
    "tiny_llava": (
        "tiny_llava",
        "new",
        [
            [*LLAVA, "task=pretrain", "domain=phantom_shapes", "finetune.lr=1e-3", "trainer.max_epochs=2"],
            [*LLAVA, "task=vqa", "domain=phantom_shapes", "finetune.lr=1e-3", "trainer.max_epochs=4"],
        ],
    ),
    "tiny_llava_med": (
        "tiny_llava_med",
        "tiny_llava",
        [
            [*LLAVA, "task=pretrain", "domain=phantom_mixture", "finetune.lr=1e-3", "trainer.max_epochs=1"],
            [*LLAVA, "task=vqa", "domain=phantom_mixture", "finetune.lr=1e-3", "trainer.max_epochs=4"],
        ],
    ),
}


def train(model: str, source: Path, overrides: list[str], runs: Path) -> tuple[Path, list[str]]:
    """Run one training cell; returns its directory and its overrides."""
    arguments = [f"model={model}", *overrides, *COMMON]
    command = [sys.executable, "-m", "vlmbench.train", *arguments, f"model.source={source}", f"output={runs}"]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    print(printed, end="", flush=True)
    return Path(printed.strip().splitlines()[-1]).parent, arguments


def export(cell: Path, folder: Path) -> None:
    """Write what a cell trained as a checkpoint in the hub's format, in float16."""
    config = cell_from_dict(read_record(cell)["config"])
    backbone = build_backbone(config.model, precision="32-true", trains_all=True, lock=config.lock)
    build_tuner(config.finetune).load(backbone, cell / "saved")
    backbone.model.to(torch.float16)
    shutil.rmtree(folder, ignore_errors=True)
    for part in (backbone.model, backbone.processor):
        part.save_pretrained(str(folder))


def make(name: str, work: Path) -> list[list[str]]:
    """Make one checkpoint; returns the overrides of its trainings."""
    model, start, trainings = PLAN[name]
    source = work / f"{name}-start"
    shutil.rmtree(source, ignore_errors=True)
    texts = corpus(seed=1000)
    if start == "new" and name == "tiny_clip":
        init_clip(source, texts, SEED)
    elif start == "new":
        init_llava(source, texts, ASSETS / "tiny_clip", SEED)
    else:
        shutil.copytree(ASSETS / start, source)
    commands = []
    for number, overrides in enumerate(trainings):
        cell, arguments = train(model, source, overrides, work / "runs")
        commands.append(arguments)
        source = work / f"{name}-{number}"
        export(cell, source)
    shutil.rmtree(ASSETS / name, ignore_errors=True)
    shutil.copytree(source, ASSETS / name)
    return commands


def main() -> None:
    """Make the checkpoints asked for and write down how."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/tiny"), help="intermediate checkpoints and cells")
    parser.add_argument("--only", nargs="*", choices=list(PLAN), default=list(PLAN))
    arguments = parser.parse_args()
    path = ASSETS / "PROVENANCE.json"
    provenance = json.loads(path.read_text()) if path.exists() else {}
    for name in arguments.only:
        commands = make(name, arguments.work)
        weights = (ASSETS / name / "model.safetensors").read_bytes()
        provenance[name] = {
            "seed": SEED,
            "starts_from": PLAN[name][1],
            "trainings": [" ".join(["python -m vlmbench.train", *row]) for row in commands],
            "torch": torch.__version__,
            "bytes": len(weights),
            "sha256": hashlib.sha256(weights).hexdigest(),
        }
        path.write_text(json.dumps(provenance, indent=1) + "\n")
        print(f"{name}: {len(weights) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
