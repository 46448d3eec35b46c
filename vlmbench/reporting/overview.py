"""What was run, and what a reader must be warned of; made after all other sections, whose gaps it names."""

from __future__ import annotations

from vlmbench.reporting import notes
from vlmbench.reporting.section import Section, rendered
from vlmbench.reporting.study import Study


def counts(study: Study) -> dict[str, int]:
    """Records by what became of them."""
    done = [row for row in study.rows if row.done]
    return {
        "cells done": sum(row.kind == "cell" for row in done),
        "transfers done": sum(row.kind == "transfer" for row in done),
        "failed": len(study.rows) - len(done),
        "unreadable files": len(study.unreadable),
    }


def warnings(study: Study) -> list[str]:
    """What weakens the numbers, with the predictions that could not be read so far."""
    told = notes.warnings(study.rows, study.older, study.unreadable)
    if study.lacking:
        n = len(study.lacking)
        path, reason = next(iter(sorted(study.lacking.items())))
        told.append(
            f"{n} finished record{'s' if n > 1 else ''} without predictions that can be read, left out of all that is "
            f"computed from them (differences, verdicts, profiles, subgroups): {path}: {reason}"
            + (" and others." if n > 1 else ".")
        )
    return told


def section(study: Study) -> Section:
    """The section."""
    body = rendered("run.html.j2", counts=counts(study), facts=notes.facts(study.rows), warnings=warnings(study))
    return Section("run", "What was run", body)
