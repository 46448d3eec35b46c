"""Tables for other programs and for papers: `cells.csv` with everything, and LaTeX with booktabs."""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vlmbench.reporting.grids import Line, Matrix, Tile
from vlmbench.reporting.rows import Row
from vlmbench.reporting.text import interval_text, method_text, name_text, value_text

PARTS = ("vision", "connector", "language", "text", "head")
SECONDS = ("setup", "fit", "select", "predict", "total")
_CELL = ("identity", "kind", "status", "task", "model", "role", "pair", "family", "finetune", "scope", "domain")
_AFTER = ("modality", "exposure", "trained_on", "seed", "primary_metric")
_METRIC = ("metric", "value", "low", "high", "n_resamples", "undefined", "reason")
# Column: the path of keys in the record that it is read from.
_RECORD: dict[str, tuple[str, ...]] = {
    "bootstrap_method": ("bootstrap", "method"),
    "bootstrap_unit": ("bootstrap", "unit"),
    "bootstrap_groups": ("bootstrap", "n_groups"),
    "confidence": ("bootstrap", "confidence"),
    "n_examples": ("n", "examples"),
    "n_groups": ("n", "groups"),
    "selection_metric": ("selection", "metric"),
    "selection_value": ("selection", "value"),
    "selection_epoch": ("selection", "epoch"),
    **{f"seconds_{part}": ("cost", "seconds", part) for part in SECONDS},
    "peak_memory_host_bytes": ("cost", "peak_memory_bytes", "host"),
    "peak_memory_device_bytes": ("cost", "peak_memory_bytes", "device"),
    **{f"trainable_{part}": ("cost", "parameters", part, "trainable") for part in PARTS},
    **{f"parameters_{part}": ("cost", "parameters", part, "total") for part in PARTS},
    "train_examples_per_second": ("cost", "examples_per_second", "train"),
    "predict_examples_per_second": ("cost", "examples_per_second", "predict"),
    **{f"data_wait_{part}": ("cost", "data_wait", part) for part in ("train", "predict")},
    "saved_bytes": ("cost", "saved_bytes"),
    "data_fingerprint": ("data", "fingerprint"),
    "licence": ("data", "licence"),
    "python": ("environment", "python"),
    "git_commit": ("environment", "git", "commit"),
    "git_dirty": ("environment", "git", "dirty"),
    "device": ("environment", "device"),
    "precision": ("environment", "precision"),
    **{f"hash_{name}": ("hashes", name) for name in ("config", "data", "weights", "saved")},
    "error_type": ("error", "type"),
    "error_message": ("error", "message"),
    "started": ("started",),
    "finished": ("finished",),
}
COLUMNS = (*_CELL, *_AFTER, *_METRIC, *_RECORD, "record", "replaced")


def csv_rows(rows: Sequence[Row], older: Sequence[Row] = ()) -> Iterator[dict[str, Any]]:
    """One dict a record and metric, of `COLUMNS`; a record without metrics gives one with an empty `metric`.

    `replaced` is True for the records in `older`, which a mean over cells must not count a second time.
    """
    replaced = {row.path for row in older}
    for row in rows:
        shared: dict[str, Any] = {name: getattr(row, name) for name in (*_CELL, *_AFTER)}
        for name, keys in _RECORD.items():
            number = row.number(*keys)
            shared[name] = row.scalar(*keys) if number is None else number
        shared |= {"record": row.path, "replaced": row.path in replaced}
        if not row.estimates:
            yield shared | {"metric": "", "reason": row.primary.reason}
        for metric, estimate in row.estimates.items():
            yield shared | {"metric": metric} | {name: getattr(estimate, name) for name in _METRIC[1:]}


def write_csv(rows: Sequence[Row], path: Path, older: Sequence[Row] = ()) -> None:
    """Write `cells.csv`: UTF-8, full precision, an empty field where a record holds nothing."""
    with path.open("w", encoding="utf-8", errors="replace", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(csv_rows(rows, older))


_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",  # \textquotedbl needs a font encoding that is not the default
    "[": "{[}",  # a bracket that follows \\ would be read as its optional argument
    "]": "{]}",
    "·": r"$\cdot$",  # between a method and its scope
}


def latex_escape(text: str) -> str:
    """Escape plain text for LaTeX; control characters and line ends become spaces."""
    return "".join(" " if unicodedata.category(c) in ("Cc", "Cs") else _LATEX.get(c, c) for c in text)


def latex_table(matrices: Sequence[Matrix], task: str) -> str:
    """A LaTeX table of each primary metric of a task, or a comment where the records hold none of it.

    Bold is the highest point estimate of a domain at the printed precision; a dagger marks `id`.
    """
    chosen = [matrix for matrix in matrices if matrix.task == task and matrix.lines]
    if not chosen:
        return f"% no cell of task {latex_escape(task)} among the records\n"
    return "% needs \\usepackage{booktabs,graphicx}\n" + "\n".join(_latex_matrix(matrix) for matrix in chosen)


def _latex_matrix(matrix: Matrix) -> str:
    lines = matrix.lines
    columns = zip(*(line.tiles for line in lines), strict=True)
    best = [max((round(t.value, 3) for t in tiles if t.value is not None), default=None) for tiles in columns]
    heads = " & ".join(latex_escape(name) for name, _ in matrix.domains)
    several = any(tile.seeds > 1 for line in lines for tile in line.tiles)
    metric = latex_escape(name_text(matrix.metric)) or "No metric recorded"
    caption = f"{metric} by model, adaptation and domain, with its interval."
    if several:
        caption += " Where several seeds were run: mean, with smallest and largest seed in parentheses."
    caption += r" $^{\dagger}$: the model's pre-training covered the modality; $^{?}$: unknown."
    caption += " Bold: highest point estimate of the domain, which is no test of a difference. --: not run."
    out = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{caption}}}",
        rf"\label{{tab:{_label(matrix)}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",  # made smaller where it would be cut
        rf"\begin{{tabular}}{{ll{'r' * len(matrix.domains)}}}",
        r"\toprule",
        rf"Model & Adaptation & {heads} \\",
    ]
    for _, group in matrix.groups:
        out.append(r"\midrule")
        out += [row for line in group for row in _latex_rows(line, best)]
    return "\n".join([*out, r"\bottomrule", r"\end{tabular}}", r"\end{table}", ""])


def _latex_rows(line: Line, best: Sequence[float | None]) -> list[str]:
    """The values of a line, and below them the intervals: beside each other they are too wide for a page."""
    values = [_latex_value(tile, top) for tile, top in zip(line.tiles, best, strict=True)]
    spreads = [_latex_small(_spread(tile)) for tile in line.tiles]
    rows = [[latex_escape(line.model), latex_escape(method_text(line.finetune, line.scope)), *values]]
    if line.variant or any(spreads):
        rows.append(["", _latex_small(latex_escape(line.variant)), *spreads])
    return [" & ".join(cells) + r" \\" for cells in rows[:-1]] + [" & ".join(rows[-1]) + r" \\[3pt]"]


def _latex_value(tile: Tile, best: float | None) -> str:
    if tile.value is None:
        return {"missing": "--", "failed": "failed"}.get(tile.state, "n/a")
    value = value_text(tile.value, minus="-")
    number = value if round(tile.value, 3) != best else rf"\mathbf{{{value}}}"
    mark = {"id": r"^{\dagger}", "unknown": "^{?}"}.get(tile.exposure, "")
    return f"${number}{mark}$"


def _spread(tile: Tile) -> str:
    spread = interval_text(tile.low, tile.high, minus="-")
    return f"({spread[1:-1]}; $n={tile.seeds}$)" if tile.seeds > 1 else spread


def _latex_small(text: str) -> str:
    return rf"{{\scriptsize {text}}}" if text else ""


def _label(matrix: Matrix) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in f"{matrix.task}-{matrix.metric}")
