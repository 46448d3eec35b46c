"""What each model and method reaches on the domains that all were run on, and what it costs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlmbench.metrics.comparison import Contrast, Difference, average
from vlmbench.metrics.pareto import front
from vlmbench.reporting.lines import Drawn, Line, drawn, is_seeded, level, lines_of, measured, seed_of
from vlmbench.reporting.rows import Row
from vlmbench.reporting.study import Study
from vlmbench.reporting.tables import PARTS

#: What is weighed against the metric: the path in `cost`, the heading, and how it is printed.
COSTS: Mapping[str, tuple[str, str]] = {
    "trainable": ("trainable parameters", "count"),
    "device_seconds": ("device seconds of a cell", "seconds"),
    "memory": ("peak memory", "bytes"),
    "saved": ("bytes that are saved", "bytes"),
    "flops": ("floating-point operations of a cell", "operations"),
}


@dataclass(frozen=True, slots=True)
class Spent:
    """One model and method over the domains that all have.

    Attributes:
        lines: One a domain.
        level: Mean over domains of the mean over seeds.
        costs: Mean over its cells; None where a record does not hold it.
        on_front: By cost, whether it is on the front of the estimates.
        share: By cost, in how many of the resamples it is on their front.
    """

    lines: tuple[Line, ...]
    level: Difference
    costs: Mapping[str, float | None]
    on_front: Mapping[str, bool]
    share: Mapping[str, float]

    @property
    def first(self) -> Line:
        """What all share can be read off any."""
        return self.lines[0]

    @property
    def cells(self) -> str:
        """Identities of its records."""
        return " ".join(line.cells for line in self.lines)


@dataclass(frozen=True, slots=True)
class Budget:
    """All models and methods of one task and metric.

    Attributes:
        domains: That the mean is over.
        spent: Of each model and method.
        left_out: Those without all these domains, or without predictions.
        devices: What the cells ran on; seconds compare on one alone.
        memory: Where peak memory was measured: `device`, or `host` where some cells used none.
    """

    task: str
    metric: str
    domains: tuple[str, ...]
    spent: tuple[Spent, ...]
    left_out: tuple[str, ...]
    devices: tuple[str, ...]
    memory: str


def budgets(study: Study) -> list[Budget]:
    """Weigh metric against cost, for every task and metric, over cells of whole, clean domains."""
    rows = [
        row
        for row in study.rows
        if row.kind == "cell" and row.done and row.task in ("diagnosis", "vqa") and not {"@", "~"} & set(row.domain)
    ]
    found: dict[tuple[str, str], list[Line]] = defaultdict(list)
    for line in lines_of(rows):
        found[line.first.task, line.first.primary_metric].append(line)
    # A metric that is undefined on one test set would make every mean undefined.
    known = {path: one for path, one in drawn(study, rows).items() if not np.isnan(one.point)}
    made = [_budget(task, metric, lines, known, study) for (task, metric), lines in found.items()]
    return [one for one in made if one is not None]


def _budget(task: str, metric: str, lines: Sequence[Line], known: Mapping[str, Drawn], study: Study) -> Budget | None:
    by_name: dict[str, dict[str, Line]] = defaultdict(dict)
    for line in lines:
        if any(row.path in known for row in line.rows):
            by_name[line.name][line.first.domain] = line
    if not by_name:
        return None
    counts = Counter(domain for domains in by_name.values() for domain in domains)
    # One model that ran on a single domain shall not narrow the mean of all others to it.
    core = sorted(domain for domain, n in counts.items() if 2 * n > len(by_name)) or sorted(counts)[:1]
    kept = {name: [domains[d] for d in core] for name, domains in by_name.items() if set(core) <= set(domains)}
    if not kept:
        return None
    cells = [row for members in kept.values() for line in members for row in line.rows]
    memory = "device" if all(row.number("cost", "peak_memory_bytes", "device") for row in cells) else "host"
    contrasts = [_mean(members, known) for members in kept.values()]
    costs = [{name: _cost(members, name, memory) for name in COSTS} for members in kept.values()]
    scores = np.array([one.estimate for one in contrasts])
    draws = np.stack([_noisy(one, place) for place, one in enumerate(contrasts)])
    on_front: dict[str, dict[int, bool]] = {}
    share: dict[str, dict[int, float]] = {}
    for name in COSTS:
        priced = {place: price for place, of_line in enumerate(costs) if (price := of_line[name]) is not None}
        places, prices = list(priced), list(priced.values())
        on_front[name] = dict(zip(places, front(prices, scores[places]).tolist(), strict=True)) if places else {}
        shares = front(prices, draws[places]).mean(axis=1).tolist() if places else []
        share[name] = dict(zip(places, shares, strict=True))
    spent = tuple(
        Spent(
            tuple(members),
            measured(one, study.settings, unit=True),
            costs[place],
            {name: on_front[name][place] for name in COSTS if place in on_front[name]},
            {name: share[name][place] for name in COSTS if place in share[name]},
        )
        for place, (members, one) in enumerate(zip(kept.values(), contrasts, strict=True))
    )
    devices = sorted({row.text("environment", "device") or "a device that is not recorded" for row in cells})
    left_out = sorted({line.name for line in lines} - set(kept))
    return Budget(task, metric, tuple(core), spent, tuple(left_out), tuple(devices), memory)


def _mean(lines: Sequence[Line], known: Mapping[str, Drawn]) -> Contrast:
    """Mean over domains; what is tested on the same examples shares its resamples."""
    levels = []
    for line in lines:
        members = [known[row.path] for row in line.rows if row.path in known]
        same = [one for one in members if one.examples == members[0].examples]
        levels.append(level(same, seeded=is_seeded(line.first)))
    return average(levels)


def _noisy(one: Contrast, place: int) -> NDArray[np.float64]:
    """Draws (R,) with the noise of seeds, as far as it is known, added to that of the resampled groups."""
    deviation = one.seed_variance**0.5
    return one.draws + np.random.default_rng([seed_of("0" * 12), place]).normal(size=len(one.draws)) * deviation


def _cost(lines: Sequence[Line], name: str, memory: str) -> float | None:
    values = [cost_of(row, name, memory) for line in lines for row in line.rows]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def cost_of(row: Row, name: str, memory: str = "host") -> float | None:
    """Return one of `COSTS` of a record; None where it does not hold it."""
    if name == "trainable":
        counts = [row.number("cost", "parameters", part, "trainable") for part in PARTS]
        known = [count for count in counts if count is not None]
        return sum(known) if known else None
    paths = {
        "device_seconds": ("device_seconds",),
        "memory": ("peak_memory_bytes", memory),
        "saved": ("saved_bytes",),
        "flops": ("flops", "total"),
    }
    return row.number("cost", *paths[name])
