"""Time an epoch over JPEG files with the pixel cache warm against decoding them, in one process.

    python scripts/bench/pixel_cache.py [--images 5000] [--repetitions 3] [--side 224]

Prints the median ratio and its spread without and with worker processes, the time of a start on a warm cache, and what
filling the cache costs over a pass that only decodes. Both ways must give the same tensors before anything is timed.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter

from vlmbench.domains.base import Domain, Example
from vlmbench.domains.datamodule import DomainDataModule, stack_pixels
from vlmbench.domains.folder_images import FolderImages
from vlmbench.domains.parallel import over_images

SIZE = 512


def write_images(folder: Path, count: int) -> None:
    """Write JPEG files of 512 x 512: smooth shapes under grain, as a detector's image has."""
    noise = np.random.default_rng(0).normal(0, 1, (2 * SIZE, 2 * SIZE, 3))
    coarse = Image.fromarray(np.uint8(noise * 60 + 128)).filter(ImageFilter.GaussianBlur(12))
    base = (np.asarray(coarse, dtype=np.float64) - 128) * 8 + 128 + noise * 4

    def write(number: int) -> None:
        left, top = number * 37 % SIZE, number * 101 % SIZE
        shown = base[top : top + SIZE, left : left + SIZE] + number % 23
        Image.fromarray(np.uint8(shown.clip(0, 255))).save(folder / f"{number}.jpg", quality=90)

    over_images(write, range(count), "Writing JPEG files")


def main() -> None:
    """Make the files, check, time, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--side", type=int, default=224, help="of the model's input")
    arguments = parser.parse_args()
    from transformers import CLIPImageProcessorPil

    side = arguments.side
    crop = {"height": side, "width": side}
    processor = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=crop)

    def preprocess(image: Image.Image) -> torch.Tensor:
        return processor(images=image, return_tensors="pt")["pixel_values"][0].float()

    with tempfile.TemporaryDirectory(prefix="pixel-cache-") as name:
        folder, cache = Path(name) / "images", Path(name) / "cache"
        folder.mkdir()
        write_images(folder, arguments.images)
        rows = [Example(str(i), f"{i}.jpg", str(i), "test") for i in range(arguments.images)]
        domain = Domain("bench", "xray", "diagnosis", rows, FolderImages(folder))
        mib = sum(path.stat().st_size for path in folder.iterdir()) / 2**20
        print(f"{arguments.images:,} JPEG files of {SIZE} x {SIZE}, {mib:,.0f} MiB, to {side} x {side}")

        def module(kept: bool, workers: int) -> DomainDataModule:
            return DomainDataModule(
                domain,
                preprocess,
                batch_size=64,
                eval_batch_size=64,
                num_workers=workers,
                cache=cache,
                cache_gib=50.0 if kept else 0.0,
            )

        def epoch(kept: bool, workers: int, check: bool = False) -> tuple[float, float, int]:
            """Return the seconds of the start and of the pass, and a checksum of its tensors, which takes time too."""
            begin, checksum, count = time.perf_counter(), 0, 0
            batches = module(kept, workers).ordered("test", stack_pixels)
            start = time.perf_counter()
            for batch in batches:
                count += len(batch["pixels"])
                checksum = zlib.crc32(batch["pixels"].numpy(), checksum) if check else 0
            assert count == arguments.images
            return start - begin, time.perf_counter() - start, checksum

        _, decoding, expected = epoch(False, 0, check=True)
        filling, reading, found = epoch(True, 0, check=True)
        size = sum(path.stat().st_size for path in cache.rglob("*.bin")) / 2**20
        print(f"decoding alone {decoding:.1f} s; filling {filling:.1f} s and the pass behind it {reading:.1f} s")
        print(f"the cache takes {size:,.0f} MiB", flush=True)
        assert found == expected == epoch(True, 2, check=True)[2], "the cache gives other pixels"
        for workers in (0, 2):
            slow, fast, ratios = [], [], []
            for _ in range(arguments.repetitions):
                slow.append(epoch(False, workers)[1])
                start, took, _ = epoch(True, workers)
                fast.append(took)
                ratios.append(slow[-1] / took)
            ratio = f"{statistics.median(ratios):.1f} times faster ({min(ratios):.1f} to {max(ratios):.1f})"
            times = f"decoding {statistics.median(slow):.2f} s, cached {statistics.median(fast):.2f} s"
            print(f"num_workers={workers}: {times} (start {start:.2f} s): {ratio}", flush=True)


if __name__ == "__main__":
    main()
