"""Row 7: LoRA in the language model (scope L) with what the frozen vision tower gives kept, against the live tower.

    python scripts/bench/vision_cache.py [--rows cpu gpu] [--repetitions 3] [--json FILE]
    python scripts/bench/vision_cache.py --rows gpu --device cpu --small     # whether the GPU rows run

Random weights. Both sides take the same steps over the same batches, decoded images in memory; ours looks at each image
once, writes what the tower gives to an empty cache on disk and reads it from there, all of which counts. Their loss
curves must be the same before anything is printed.

What can be won is the tower's share of a step: its forward pass beside the language model's forward pass and the
backward pass through its activations. The CPU row has the proportions of LLaVA-OneVision 0.5B: a tower of 1.1 times the
language model without embeddings (SigLIP with 0.40e9 parameters beside 0.36e9 of Qwen2), and as many image tokens in
both. LLaVA 1.5 7B has a language model of twenty times its tower; MedGemma 4B one of ten times, which reads a sixteenth
of the tower's tokens.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from measure import Row, arguments_of, finish, in_turn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

QUESTIONS = 7  # an image, as in VQA-RAD


@dataclass(frozen=True)
class Sizes:
    """A model and a training.

    Attributes:
        name: In the table.
        release: Whose format, of `scripts/releases`.
        vision: Fields of the tower's configuration.
        text: Fields of the language model's.
        whole: Fields of the model's.
        images: Of the domain, `QUESTIONS` a piece.
        batch: Questions in a batch.
        epochs: Passes over all questions.
    """

    name: str
    release: str
    vision: dict[str, Any]
    text: dict[str, Any]
    images: int
    batch: int
    epochs: int
    whole: dict[str, Any]


def width(hidden: int, mlp: int, layers: int, heads: int, **others: Any) -> dict[str, Any]:
    """Return the fields that say how large a transformer is."""
    sizes = {"hidden_size": hidden, "intermediate_size": mlp, "num_hidden_layers": layers, "num_attention_heads": heads}
    return sizes | others


CPU = Sizes(
    "LLaVA with tower and language model of 12 layers and 384 channels, 256 image tokens",
    "llava",
    width(384, 1536, 12, 6, image_size=256, patch_size=16),
    width(384, 880, 12, 6, vocab_size=4096),
    images=3,
    batch=7,
    epochs=3,
    whole={},
)
GPU = (
    Sizes(
        "LLaVA 1.5 7B",
        "llava",
        width(1024, 4096, 24, 16, image_size=336, patch_size=14),
        width(4096, 11008, 32, 32, vocab_size=32064),
        images=32,
        batch=16,
        epochs=3,
        whole={},
    ),
    Sizes(
        "MedGemma 4B",
        "gemma3",
        width(1152, 4304, 27, 16, image_size=896, patch_size=14),
        width(2560, 10240, 34, 8, num_key_value_heads=4, head_dim=256, sliding_window=1024, vocab_size=262208),
        images=32,
        batch=16,
        epochs=3,
        whole={"mm_tokens_per_image": 256},
    ),
)


def small(sizes: Sizes) -> Sizes:
    """Return a training of the same kind that takes seconds."""
    return replace(sizes, name=f"{sizes.name} made small", vision={}, text={}, whole={}, images=3, batch=4, epochs=2)


def built(sizes: Sizes, device: torch.device, dtype: torch.dtype) -> Any:
    """Return a backbone with random weights, LoRA in its language model."""
    from releases import makers
    from transformers import AutoConfig, AutoModelForImageTextToText

    from vlmbench.backbones.base import Conversation
    from vlmbench.backbones.generative.native import HfVlm
    from vlmbench.tuning.tuners import Lora
    from vlmbench.weights.processor import load_processor

    with tempfile.TemporaryDirectory(prefix="vision-bench-") as name:
        makers()[sizes.release](Path(name))
        folder = Path(name) / "main"
        if side := sizes.vision.get("image_size"):
            square = {"height": side, "width": side}
            crop = {"size": {"shortest_edge": side}, "crop_size": square}
            parts = {"vision_config": sizes.vision, "text_config": sizes.text}
            edit(folder / "config.json", {**sizes.whole, **parts})
            edit(folder / "preprocessor_config.json", crop if sizes.release == "llava" else {"size": square})
            tokens = sizes.whole.get("mm_tokens_per_image")
            edit(folder / "processor_config.json", {"image_seq_length": tokens} if tokens else {})
        config = AutoConfig.from_pretrained(folder)
        torch.manual_seed(0)
        with torch.device(device):
            model = AutoModelForImageTextToText.from_config(config, dtype=dtype)
        backbone = HfVlm(model.eval(), load_processor(folder, config, {}), Conversation(max_length=8192))
    Lora("L", 8, 16.0, 0.0).apply(backbone)
    backbone.model.to(device)
    return backbone


def edit(path: Path, fields: dict[str, Any]) -> None:
    """Set fields of a JSON file, those of a part within the part."""
    told = json.loads(path.read_text(encoding="utf-8"))
    for key, value in fields.items():
        told[key] = {**told.get(key, {}), **value} if isinstance(value, dict) else value
    path.write_text(json.dumps(told), encoding="utf-8")


class Training:
    """The same steps from the same adapters, whatever stands in for the images.

    Args:
        sizes: How large.
        device: Where.
    """

    def __init__(self, sizes: Sizes, device: torch.device) -> None:
        from releases.common import sample_image

        from vlmbench.cell.seen import SeenImages
        from vlmbench.cell.vision import on_host

        self.images_seen, self.on_host = SeenImages, on_host
        self.sizes, self.device = sizes, device
        self.half = device.type == "cuda"
        self.backbone = built(sizes, device, torch.bfloat16 if self.half else torch.float32)
        self.trained = {name: p for name, p in self.backbone.model.named_parameters() if p.requires_grad}
        self.start = {name: p.detach().clone() for name, p in self.trained.items()}
        shapes = [(320 + 8 * number, 300) for number in range(sizes.images)]
        self.images = [self.backbone.preprocess(sample_image(*shape)) for shape in shapes]
        self.seconds_seeing: list[float] = []
        self.kept_bytes = 0
        self._train(self.images[:1], [""])  # what only the first steps of a process do

    def live(self) -> list[float]:
        """Return the loss of each step, the tower run on every image of every batch."""
        return self._train(self.images, [""] * len(self.images))

    def kept(self) -> list[float]:
        """Return the same with the tower run once an image, into an empty cache on disk."""
        dtype = torch.bfloat16 if self.half else torch.float32
        digests = {str(n): hashlib.sha256(str(n).encode()).digest() for n in range(len(self.images))}

        def make(key: str) -> Any:
            with self._autocast():
                return self.on_host(self.backbone.see(self.images[int(key)]), dtype)

        with tempfile.TemporaryDirectory(prefix="vision-bench-") as cache:
            began = time.perf_counter()
            seen = self.images_seen(Path(cache), 2**40, "tower", {}, digests, make)
            assert seen.fill("") == 0
            self.seconds_seeing.append(time.perf_counter() - began)
            self.kept_bytes = seen.nbytes()
            return self._train([seen(key) for key in digests], list(digests))

    def _train(self, images: Sequence[Any], names: Sequence[str]) -> list[float]:
        from vlmbench.backbones.base import Turn

        for name, parameter in self.trained.items():
            parameter.data.copy_(self.start[name])
        optimiser = torch.optim.AdamW(self.trained.values(), lr=1e-3)
        turns = [
            Turn(image, f"nodule {number}?", "yes" if number % 2 else "none", name)
            for image, name in zip(images, names, strict=True)
            for number in range(QUESTIONS)
        ]
        order, losses = torch.Generator().manual_seed(0), []
        for _ in range(self.sizes.epochs):
            for rows in torch.randperm(len(turns), generator=order).split(self.sizes.batch):
                batch = self.backbone.collate([turns[row] for row in rows], supervise=True)
                with self._autocast():
                    loss = self.backbone.forward(batch)[0]
                loss.backward()
                optimiser.step()
                optimiser.zero_grad()
                losses.append(loss.detach())
        return torch.stack(losses).tolist()

    @contextlib.contextmanager
    def _autocast(self) -> Iterator[None]:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.half):
            yield


def measured(sizes: Sizes, device: torch.device, repetitions: int) -> Row:
    """Train in both ways and return the row."""
    training, furthest = Training(sizes, device), 0.0
    tolerance = 5e-2 if training.half else 1e-5

    def same(ours: list[float], baseline: list[float]) -> None:
        nonlocal furthest
        differ = max(abs(a - b) for a, b in zip(ours, baseline, strict=True))
        assert differ <= tolerance, f"the loss curves differ by {differ}"
        assert ours[0] != ours[-1], "nothing was learnt"
        furthest = max(furthest, differ)

    questions = sizes.images * QUESTIONS
    row = Row(
        7,
        "LoRA scope L, the tower's outputs kept",
        "the live tower",
        f"{_name(device)}, {sizes.name}, {questions} questions about {sizes.images} images, {sizes.epochs} epochs",
        "",
        bar="1.3" if sizes.vision else "",
    )
    timed = in_turn(training.kept, training.live, repetitions, same)
    row.equal = f"loss curves, within {furthest:.1g}"
    parts = {"tower": "vision", "language": "language"}
    names = training.backbone.part_prefixes
    for shown, part in parts.items():
        count = sum(
            p.numel()
            for name, p in training.backbone.model.named_parameters()
            if name.removeprefix("base_model.model.").startswith(names[part])
        )
        row.figures[f"{shown}_parameters_millions"] = count / 1e6
    row.figures["building_the_cache_s"] = sorted(training.seconds_seeing)[len(training.seconds_seeing) // 2]
    row.figures["kept_mib_an_image"] = training.kept_bytes / sizes.images / 2**20
    return timed.into(row)


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def main() -> None:
    """Measure the rows that are asked for."""
    parser = arguments_of(__doc__)
    parser.add_argument("--rows", nargs="+", choices=("cpu", "gpu"), default=["cpu", "gpu"])
    parser.add_argument("--device", default="cuda", help="of the GPU rows")
    parser.add_argument("--small", action="store_true", help="sizes at which nothing is to be measured")
    asked = parser.parse_args()
    wanted = [(CPU, "cpu")] if "cpu" in asked.rows else []
    wanted += [(sizes, asked.device) for sizes in GPU] if "gpu" in asked.rows else []
    rows = []
    for sizes, device in wanted:
        if device == "cuda" and not torch.cuda.is_available():
            row = Row(7, "LoRA scope L, the tower's outputs kept", "the live tower", sizes.name, "", bar="1.3")
            row.note = "not measured: no GPU here"
            rows.append(row)
            continue
        rows.append(measured(small(sizes) if asked.small else sizes, torch.device(device), asked.repetitions))
    finish(rows, asked.json)


if __name__ == "__main__":
    main()
