"""How long a report of thousands of cells takes to make, how large it is, and when a reader can use it.

python scripts/bench/report.py [--lines 400 2000] [--examples 500] [--keep FOLDER]

Makes a synthetic study: so many lines of the heat map (model x method x recipe) over five domains, with complete
configurations and predictions. Then runs `python -m vlmbench.report` on it, as a shell sees it, and opens the page in
headless Chromium over the DevTools protocol: `interactive` is when the script of the page has run and the first frame
after it was drawn, in milliseconds of the page's own clock since its navigation began, the median of the repetitions.
A filter is then clicked, and a long table opened, to the next frame. There is no baseline: the bars are absolute.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from browser import CHROMIUM, Browser
from measure import Row, arguments_of, finish
from sklearn.metrics import roc_auc_score
from synthetic_records import make_record
from synthetic_study import diagnosis_frame

from vlmbench.config.entry import compose
from vlmbench.records.store import write_predictions, write_record

MODELS = (
    *("clip", "biomedclip", "pubmedclip", "plip", "siglip", "medsiglip", "quiltnet", "monet", "pmc_clip", "conch"),
    *("clip_vit_b16", "clip_vit_l14", "bmc_clip", "medclip", "siglip2", "quiltnet_b16", "pmc_clip_vit_l14"),
    *("siglip_so400m", "tiny_clip", "tiny_medclip"),
)
DOMAINS = ("phantom_radiograph", "phantom_fundus", "phantom_dermoscopy", "phantom_oct", "phantom_ultrasound")
METHODS = ("zero_shot", "linear_probe", "coop", "clip_adapter", "full")
SECONDS, BYTES, MILLISECONDS = 60, 15_000_000, 3000
FILTER = "document.querySelector('.facet[data-key=model] input').click()"
OPEN = "document.querySelector('#commands summary').click()"
FRAME = "new Promise((done) => requestAnimationFrame(() => setTimeout(() => done(performance.now() - t))))"


def configurations(lines: int) -> list[Any]:
    """Compose the cells of a grid, with LoRA of as many ranks as make so many lines."""
    ranks = range(1, lines // len(MODELS) - len(METHODS) + 1)
    shared = [f"model={','.join(MODELS)}", f"domain={','.join(DOMAINS)}"]
    found: list[Any] = []
    argv = sys.argv
    for words in ([f"finetune={','.join(METHODS)}"], ["finetune=lora", f"finetune.rank={','.join(map(str, ranks))}"]):
        sys.argv = ["train", "-m", *shared, *words]
        compose("train", "", sweep=lambda sweep: found.extend(sweep.configs))
    sys.argv = argv
    return found


def write_cells(root: Path, configs: list[Any], examples: int) -> None:
    """Write each cell's record and predictions."""
    for number, config in enumerate(configs):
        name = config.domain.name
        level = 0.6 + 0.3 * (number * 0.618 % 1)
        frame = diagnosis_frame(examples, level, noise=number, data=DOMAINS.index(name))
        scope = getattr(config.finetune, "scope", "")
        record = make_record(config.model.name, name, finetune=config.finetune.name, scope=scope, seed=number)
        values = dataclasses.asdict(config)
        made = float(roc_auc_score(frame["target"], frame["score_1"]))
        record["metrics"]["auroc"] |= {"value": made, "low": made - 0.04, "high": made + 0.04}
        record["cell"]["seed"] = config.seed
        record |= {"identity": hashlib.sha256(str(number).encode()).hexdigest(), "config": values}
        record |= {key: getattr(config.model, key) for key in ("role", "pair", "family")}
        record["n"] = {"examples": examples, "groups": frame["group"].nunique()}
        folder = root / f"{config.model.name}-{config.finetune.name}-{name}-{number:06d}"
        write_predictions(folder, frame)
        write_record(folder, record)


def opened(page: Path, repetitions: int) -> tuple[dict[str, float | str], list[str]]:
    """Open the page so often in a fresh browser; returns median milliseconds, and what the console said."""
    taken: dict[str, list[float]] = {"interactive_ms": [], "filter_ms": [], "open_table_ms": []}
    messages: list[str] = []
    for _ in range(repetitions):
        with Browser() as browser:
            browser.open(page)
            taken["interactive_ms"].append(
                float(browser.wait("document.documentElement.dataset.interactive", seconds=60))
            )
            browser.run("new Promise((done) => setTimeout(done, 1500))")  # plotly is unpacked while nothing happens
            for name, script in (("filter_ms", FILTER), ("open_table_ms", OPEN)):
                taken[name].append(
                    browser.run(f"(() => {{ const t = performance.now(); {script}; return {FRAME} }})()")
                )
            browser.run("document.getElementById('cost')?.scrollIntoView()")
            browser.run("new Promise((done) => setTimeout(done, 3000))")
            messages += browser.messages
    return {name: statistics.median(values) for name, values in taken.items()}, messages


def measure(number: int, lines: int, examples: int, repetitions: int, keep: Path | None) -> Row:
    """One row: a study of so many lines over five domains."""
    with tempfile.TemporaryDirectory(prefix="vlmbench-report-") as made:
        folder = keep / str(lines) if keep else Path(made)
        configs = configurations(lines)
        if not (folder / "runs").exists():
            write_cells(folder / "runs", configs, examples)
        walls = []
        for _ in range(repetitions):
            start = time.perf_counter()
            words = [sys.executable, "-m", "vlmbench.report", f"records={folder / 'runs'}", f"output={folder / 'out'}"]
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
            walls.append(time.perf_counter() - start)
        page = folder / "out" / "report.html"
        figures, messages = opened(page, repetitions) if CHROMIUM else ({}, ["Chromium is not installed"])
        size = page.stat().st_size
    figures = {"report_s": statistics.median(walls), "page_bytes": float(size), **figures}
    told = "; ".join(sorted(set(messages))) or "no message of the console"
    where = f"{len(configs):,} cells of {examples} examples"
    bar = f"{SECONDS} s, {BYTES / 1e6:g} MB, {MILLISECONDS / 1000:g} s"
    row = Row(number, "report and page", "none", where, told, bar, figures=figures)
    row.note = ", ".join(f"{name} {value:,.1f}" for name, value in figures.items() if isinstance(value, float))
    row.note += f" ({where}; {told})"
    return row


def main() -> None:
    """Print one row for each number of lines."""
    parser = arguments_of(__doc__)
    parser.add_argument("--lines", type=int, nargs="+", default=[400, 2000], help="of the heat map, at least 120")
    parser.add_argument("--examples", type=int, default=500)
    parser.add_argument("--keep", type=Path, help="leave the studies here, and take those that are here")
    asked = parser.parse_args()
    rows = [
        measure(number, lines, asked.examples, asked.repetitions, asked.keep)
        for number, lines in zip(itertools.count(1), asked.lines, strict=False)
    ]
    finish(rows, asked.json)


if __name__ == "__main__":
    main()
