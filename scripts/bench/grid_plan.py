"""How long a grid takes to compose and to plan, without torch; and that every point is as Hydra composes it.

`python scripts/bench/grid_plan.py` prints seconds of wall time and of processor time. The bars, on two cores:
144 cells are planned in 5 s, 10,000 in 60 s. About a minute on one core.
"""

from __future__ import annotations

import argparse
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

from vlmbench.cell.naming import name_of
from vlmbench.config import product
from vlmbench.config.entry import compose
from vlmbench.config.store import conf_dir
from vlmbench.records.identity import Identities

# They have a key or a folder to be given.
NEEDY_MODELS, NEEDY_DOMAINS = ("gemini", "o3", "hosted_local"), ("folder", "vqa_jsonl", "captions_jsonl")
T = TypeVar("T")
TINY = "model=tiny_clip,tiny_medclip,tiny_llava,tiny_llava_med"
PHANTOMS = "domain=phantom_" + ",phantom_".join(
    ("radiograph", "fundus", "dermoscopy", "histology", "ultrasound", "oct")
)
TINY_GRID = [TINY, PHANTOMS, "finetune=zero_shot,linear_probe,lora", "domain.patients=20"]


def timed(function: Callable[..., T], *arguments: Any) -> tuple[float, float, T]:
    """Return the seconds of wall and of processor time that a call takes, and its result."""
    wall, processor = time.monotonic(), time.process_time()
    result = function(*arguments)
    return time.monotonic() - wall, time.process_time() - processor, result


def options(group: str, without: tuple[str, ...], count: int) -> str:
    """Return the first options of a group as a list to sweep over."""
    names = sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))
    return f"{group}={','.join([name for name in names if name not in without][:count])}"


def many_kinds() -> list[str]:
    """Return a product of 10,080 points with 3,360 different choices of model, domain and method."""
    models, domains = options("model", NEEDY_MODELS, 40), options("domain", NEEDY_DOMAINS, 28)
    return [models, domains, "finetune=zero_shot,lora,full", "seed=0,1,2"]


def product_of(words: list[str]) -> tuple[Any, Any, list[Any]]:
    """Return what Hydra hands to the sweeper: its loader, the sweep's configuration, the overrides of each point."""
    caught: list[tuple[Any, Any, list[Any]]] = []

    def catch(loader: Any, master: Any, jobs: Any) -> list[Any]:
        caught.append((loader, master, list(jobs)))
        return []

    whole, product.compose_all = product.compose_all, catch  # type: ignore[assignment]
    try:
        sys.argv = ["train", "-m", *words]
        compose("train", "", sweep=lambda sweep: None)
    finally:
        product.compose_all = whole
    return caught[0]


def composing(title: str, words: list[str], compared: int) -> None:
    """Compose a product, and a part of it by Hydra too."""
    loader, master, jobs = product_of(words)
    wall, processor, configs = timed(lambda: list(product.compose_all(loader, master, jobs)))
    drawn = random.Random(1).sample(range(len(jobs)), min(compared, len(jobs)))
    _, slow, by_hydra = timed(lambda: [product.compose_one(loader, master, jobs[index]) for index in drawn])
    differ = [
        jobs[index] for index, config in zip(drawn, by_hydra, strict=True) if repr(config) != repr(configs[index])
    ]
    if differ:
        raise SystemExit(f"{title}: {len(differ)} of {len(drawn)} points are not as Hydra composes them: {differ[0]}")
    known = Identities()
    _, named, _ = timed(lambda: [name_of(config, "data", "weights", known) for config in configs])
    each, theirs = 1000 * processor / len(jobs), 1000 * slow / len(drawn)
    print(
        f"{title}: {len(jobs):,} points composed in {wall:.1f} s ({processor:.1f} s of one core), named in "
        f"{named:.2f} s; {each:.2f} ms a point, Hydra {theirs:.0f} ms: {theirs / each:.0f} times; "
        f"{len(drawn)} compared, all the same"
    )


def planning(title: str, words: list[str], bar: float) -> None:
    """Run the command that plans, from its start to its end."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall, _, ran = timed(
        lambda: subprocess.run(
            [sys.executable, "-m", "vlmbench.grid", "plan", *words], capture_output=True, text=True, check=False
        )
    )
    if ran.returncode:
        raise SystemExit(f"{title}: {ran.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    verdict = "met" if wall <= bar else "MISSED"
    print(f"{title}: planned in {wall:.1f} s ({processor:.1f} s of one core); bar {bar:.0f} s: {verdict}")


def main() -> None:
    """Print every figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compared", type=int, default=40, help="points of each product that Hydra composes too")
    compared = parser.parse_args().compared
    few, seeds = [*TINY_GRID, "seed=0,1"], [*TINY_GRID, "seed=range(140)"]
    rates = [*TINY_GRID[:2], "finetune=lora", f"finetune.lr={','.join(f'{i}e-6' for i in range(1, 421))}"]
    composing("144 cells", few, compared)
    composing("Many seeds", seeds, compared)
    composing("Many kinds", many_kinds(), compared)
    composing("Many learning rates", rates, compared)
    if "torch" in sys.modules:
        raise SystemExit("torch was imported")
    print("torch was not imported")
    planning("144 cells", few, 5)
    planning("Many seeds", seeds, 60)
    models = options("model", NEEDY_MODELS, 40)
    planning("Forty models", [models, *TINY_GRID[1:], "seed=range(14)"], 60)


if __name__ == "__main__":
    main()
