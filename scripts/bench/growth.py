"""Row 9: time and memory against the number of examples, of cells, and the size of images.

    python scripts/bench/growth.py [--small] [--repetitions 3]

For each quantity the script measures several sizes, each in a forked process of its own, and fits the slope of a line
through the logarithms: 1 is linear, 2 quadratic. Times are processor time, which other work on the machine bends less,
and the best of the repetitions; memory is the peak that the process held above what it began with. In place of a ratio
the table has the slope of the time, in place of its spread the slopes between neighbouring sizes; that of memory stands
among the figures. Every measurement counts what it has processed, and the script stops where that is not what was asked
for.
"""

from __future__ import annotations

import itertools
import math
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from measure import Row, arguments_of, finish
from PIL import Image

from vlmbench.cell import predictions
from vlmbench.config.entry import compose
from vlmbench.domains.base import Domain, Example
from vlmbench.domains.datamodule import DomainDataModule, stack_pixels
from vlmbench.domains.folder_images import FolderImages
from vlmbench.grid.cells import grid_of
from vlmbench.grid.plan import plan
from vlmbench.records.features import kept_features

LIMIT = 1.1
POINTS = ("model=tiny_clip,tiny_medclip", "domain=phantom_radiograph,phantom_fundus,phantom_oct", "finetune=lora")
WIDTH = 512  # of features
IMAGES = 16  # of each size
Work = Callable[[int, Path], int]


def scored(examples: int, folder: Path) -> int:
    """Make a table of predictions, score it with intervals, and return the examples that were counted."""
    draw = np.random.default_rng(0)
    labels, scores = draw.integers(0, 2, examples), draw.random(examples)
    rows = [Example(str(i), str(i), str(i // 3), "test", (int(label),)) for i, label in enumerate(labels)]
    domain = Domain("bench", "xray", "diagnosis", rows, FolderImages(folder), label_names=("no", "yes"))
    batch = {"index": list(range(examples)), "scores": np.stack([1 - scores, scores], 1).tolist()}
    frame = predictions.table(rows, [batch], domain)
    told = predictions.score(frame, "diagnosis", multi_label=False, resamples=200, confidence=0.95)
    assert told["metrics"]["auroc"]["low"] < told["metrics"]["auroc"]["high"]
    return len(frame)


def features(examples: int, folder: Path) -> int:
    """Keep features and read them back; return the rows that came back."""
    made = np.random.default_rng(0).random((examples, WIDTH), dtype=np.float32)
    for kept_before in (False, True):
        found, kept = kept_features(folder, 2.0**40, {"n": examples}, lambda: {"features": made}, "bench")
        assert kept is kept_before
        assert np.array_equal(found["features"], made)
    return len(found["features"])


def planned(cells: int, folder: Path) -> int:
    """Compose a sweep of at least so many cells, plan it, and return how many there are."""
    seeds = ",".join(map(str, range(-(-cells // 6))))  # six cells each
    found: list[int] = []
    sys.argv = ["vlmbench.train", "-m", *POINTS, f"seed={seeds}", f"output={folder}"]
    compose("train", "", sweep=lambda asked: found.append(len(plan(grid_of(asked)))))
    return found[0]


def preprocessed(side: int, folder: Path) -> int:
    """Decode images of side x side, preprocess them to that size, keep them, read them; return the pixels of them."""
    from transformers import CLIPImageProcessorPil

    grain = np.random.default_rng(0).integers(0, 256, (IMAGES, side, side, 3), dtype=np.uint8)
    for number, pixels in enumerate(grain):
        Image.fromarray(pixels).save(folder / f"{number}.jpg", quality=90)
    crop = {"height": side, "width": side}
    processor = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=crop)

    def preprocess(image: Image.Image) -> torch.Tensor:
        return processor(images=image, return_tensors="pt")["pixel_values"][0].float()

    rows = [Example(str(i), f"{i}.jpg", str(i), "test") for i in range(IMAGES)]
    domain = Domain("bench", "xray", "diagnosis", rows, FolderImages(folder))
    data = DomainDataModule(
        domain, preprocess, batch_size=IMAGES, eval_batch_size=IMAGES, cache=folder / "cache", cache_gib=50.0
    )
    (batch,) = data.ordered("test", stack_pixels)
    assert data.tally.counts() == {"cached": IMAGES, "decoded": IMAGES}
    return batch["pixels"].numel() // 3


def memory(field: str) -> int:
    """Return `VmRSS` or `VmHWM` of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def measured(work: Work, size: int) -> tuple[float, int, int]:
    """Do some work in a process of its own; return seconds, bytes, and what it counted."""

    def child(send: Connection) -> None:
        with tempfile.TemporaryDirectory(prefix="vlmbench-growth-") as name:
            Path("/proc/self/clear_refs").write_text("5")  # the peak from here
            before, start = memory("VmRSS"), time.process_time()
            count = work(size, Path(name))
            send.send((time.process_time() - start, max(1, memory("VmHWM") - before), count))

    receive, send = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=child, args=(send,))
    process.start()
    send.close()
    try:
        return receive.recv()
    except EOFError:
        raise SystemExit(f"{work.__name__}({size}) failed, see above") from None
    finally:
        process.join()


def slope(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Return the slope of the least-squares line through the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def grown(title: str, where: str, work: Work, sizes: Sequence[int], count: Callable[[int], int], times: int) -> Row:
    """Measure every size and return the row."""
    with tempfile.TemporaryDirectory(prefix="vlmbench-growth-") as name:
        work(sizes[0], Path(name))  # what it imports is imported now, before the processes are forked
    seconds, held, counted = [], [], []
    for size in sizes:
        runs = [measured(work, size) for _ in range(times)]
        seconds.append(min(run[0] for run in runs))
        held.append(min(run[1] for run in runs))
        counted.append(runs[0][2])
        if any(run[2] < count(size) for run in runs) or len({run[2] for run in runs}) > 1:
            raise SystemExit(f"{title}: {[run[2] for run in runs]} counted, {count(size)} asked for")
        print(f"{title}: {counted[-1]:,}: {seconds[-1]:.3f} s, {held[-1] / 2**20:.1f} MiB", flush=True)
    between = [math.log(b / a) for a, b in itertools.pairwise(counted)]
    local = [math.log(b / a) / step for (a, b), step in zip(itertools.pairwise(seconds), between, strict=True)]
    time_slope, memory_slope = slope(counted, seconds), slope(counted, held)
    worst = max(time_slope, memory_slope)
    figures: dict[str, float | str] = {"slope of memory": memory_slope, "slope of time at the largest two": local[-1]}
    for number, second, most in zip(counted, seconds, held, strict=True):
        figures[f"at {number:,}"] = f"{second:.3f} s, {most / 2**20:.1f} MiB"
    return Row(
        9,
        title,
        "a slope of 1, linear",
        where,
        f"{', '.join(f'{number:,}' for number in counted)} counted",
        bar=f"slope <= {LIMIT}, memory too",
        ratio=time_slope,
        spread=(min(local), max(local)),
        figures=figures,
        kind="slope",
        note="" if worst <= LIMIT else f"Steeper than linear: {worst:.2f}.",
    )


def main() -> None:
    """Print the rows."""
    parser = arguments_of(__doc__)
    parser.add_argument("--small", action="store_true", help="sizes that only show that the script works")
    asked = parser.parse_args()
    small, times = asked.small, asked.repetitions
    few = [500, 1000] if small else [2000, 4000, 8000, 16000, 32000]
    cells, sides = ([36, 72], [32, 64]) if small else ([500, 1000, 2000, 4000, 8000], [64, 128, 256, 512, 1024])
    rows = [
        grown("predictions, metrics, intervals", "examples, 200 resamples", scored, few, int, times),
        grown("features kept and read again", f"examples of {WIDTH} numbers", features, few, int, times),
        grown("planning", "cells", planned, cells, int, 1),
        grown(
            "decoding, preprocessing, pixel cache",
            f"pixels of {IMAGES} images, {sides[0]} to {sides[-1]} px",
            preprocessed,
            sides,
            lambda side: IMAGES * side * side,
            times,
        ),
    ]
    finish(rows, asked.json)


if __name__ == "__main__":
    main()
