"""Row 8: encoding and LoRA training as a share of the rate at which this machine multiplies bfloat16 matrices.

python scripts/bench/machine_gpu.py                       # one CUDA device; "not measured" where there is none
python scripts/bench/machine_gpu.py --device cpu --small  # that it works: small sizes, in float32

Operations are those that torch's counter finds in the very pass that is timed: with LoRA no gradient of a frozen weight
is computed, and none is counted. The rate is the best of several sizes of square matrices, measured before and after.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from measure import Row, Timed, arguments_of, finish
from random_models import random_clip, random_llava
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vlmbench.backbones.base import Turn
from vlmbench.modules.optimiser import adamw
from vlmbench.tuning.tuners import Lora

TASKS = {
    "encoding of images by CLIP ViT-L/14": "0.5",
    "a LoRA training step of LLaVA 7B": "0.4",
}


def now(device: str) -> float:
    """Return seconds, when the device has done what it was asked for."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds_of(work: Callable[[], object], device: str, calls: int) -> float:
    """Return the mean seconds of a call, behind two calls that set things up."""
    for _ in range(2):
        work()
    start = now(device)
    for _ in range(calls):
        work()
    return (now(device) - start) / calls


def matrix_rate(device: str, dtype: torch.dtype, sizes: tuple[int, ...]) -> float:
    """Return the most operations a second that a product of square matrices reaches."""
    best = 0.0
    for size in sizes:
        first, second = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        best = max(best, 2 * size**3 / seconds_of(lambda a=first, b=second: a @ b, device, 10))  # type: ignore[misc]
    return best


def operations(work: Callable[[], object]) -> int:
    """Return the floating-point operations of a call, forward and backward."""
    counter = FlopCounterMode(display=False)
    with counter:
        work()
    return int(counter.get_total_flops())


def encoding(options: argparse.Namespace, dtype: torch.dtype) -> Callable[[], object]:
    """Return what encodes one batch of images that lie on the device."""
    backbone = random_clip("small" if options.small else "large", options.device, dtype)
    side = backbone.model.config.vision_config.image_size
    pixels = torch.randn(options.images, 3, side, side, device=options.device).to(dtype)
    return torch.inference_mode()(lambda: backbone.features(pixels))


def training(options: argparse.Namespace, dtype: torch.dtype) -> Callable[[], object]:
    """Return one optimiser step on a batch of questions, adapters in the connector and the language model."""
    from PIL import Image

    backbone = random_llava("small" if options.small else "large", options.device, dtype)
    image = backbone.preprocess(Image.new("RGB", (64, 64), (90, 120, 60)))
    Lora("ML", 16, 32.0, 0.0).apply(backbone)
    backbone.to(options.device).train()
    turns = [Turn(image, "is there a lesion in the image " * 3, "no lesion is there") for _ in range(options.rows)]
    batch: dict[str, Tensor] = {
        name: value.to(options.device) for name, value in backbone.collate(turns, supervise=True).items()
    }
    trained = [p for p in backbone.parameters() if p.requires_grad]
    optimiser = adamw([{"params": trained}], 1e-4, fused=True)

    def step() -> None:
        optimiser.zero_grad()
        with torch.autocast(options.device, torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = backbone.forward(batch)[0]
        loss.backward()
        optimiser.step()

    return step


def main() -> None:
    """Measure and print."""
    parser = arguments_of(__doc__)
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--small", action="store_true", help="small sizes")
    parser.add_argument("--images", type=int, default=256, help="images of a batch that is encoded")
    parser.add_argument("--rows", type=int, default=16, help="questions of a training batch")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        note = "not measured: no GPU here"
        finish([Row(8, ours, "the machine", "GPU", "", bar, note=note) for ours, bar in TASKS.items()], options.json)
        return
    dtype = torch.bfloat16 if options.device == "cuda" else torch.float32
    name = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    sizes = (256, 512) if options.small else (4096, 8192, 16384)
    rows = []
    for (ours, bar), make in zip(TASKS.items(), (encoding, training), strict=True):
        work = make(options, dtype)
        count = operations(work)
        taken, least, rates = [], [], []
        for _ in range(options.repetitions):
            rate = matrix_rate(options.device, dtype, sizes)
            taken.append(seconds_of(work, options.device, 5))
            rate = max(rate, matrix_rate(options.device, dtype, sizes))
            rates.append(rate)
            least.append(count / rate)
        row = Row(
            8,
            ours if not options.small else f"{ours}, at small size",
            f"the {str(dtype).removeprefix('torch.')} matrix rate of the machine",
            name,
            "the same operations, counted",
            bar="" if options.small else bar,
            figures={"matrix_tflops": max(rates) / 1e12, "operations_e12": count / 1e12},
        )
        rows.append(Timed(taken, least).into(row))
        if options.device == "cuda":
            rows[-1].figures["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
            del work
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
    finish(rows, options.json)


if __name__ == "__main__":
    main()
