"""The verdicts as tables for other programs and for papers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from vlmbench.reporting.findings import Finding, Findings
from vlmbench.reporting.tables import latex_escape
from vlmbench.reporting.telling import methods, statement, where
from vlmbench.reporting.text import interval_text, name_text
from vlmbench.reporting.wording import p_number, signed

COLUMNS = (
    *("task", "question", "level", "generalist", "specialist", "domain", "trained_on"),
    *("method_generalist", "method_specialist", "seeds_generalist", "seeds_specialist", "comparisons"),
    *("metric", "difference", "low", "high", "se", "df", "p", "p_corrected", "p_equivalent", "p_equivalent_corrected"),
    *("detectable", "groups", "groups_needed", "single_seed", "margin", "confidence", "verdict", "reason", "sentence"),
)


def verdict_rows(findings: Findings) -> Iterator[dict[str, Any]]:
    """One dict of `COLUMNS` a verdict, and one a method's gap, which has no verdict; None where there is no number."""
    for one in (*findings.verdicts, *findings.methods):
        yield _row(one, findings)


def _row(one: Finding, findings: Findings) -> dict[str, Any]:
    place, match, tested = one.place, one.matches[0], one.difference
    single, judged = len(one.matches) == 1, one.level != "method"
    whole = one.level == "question" and len({(m.place.generalist, m.place.specialist) for m in one.matches}) > 1
    numbers = {
        "difference": tested.estimate,
        "low": tested.low,
        "high": tested.high,
        "se": tested.se,
        "df": tested.df,
        "p": tested.p,
        "p_corrected": one.p,
        "p_equivalent": tested.p_equivalent,
        "p_equivalent_corrected": one.p_equivalent,
        "detectable": tested.detectable,
        "groups_needed": one.needed,
    }
    return {
        "task": one.task,
        "question": one.question.key,
        "level": one.level,
        "generalist": "" if whole else place.generalist,
        "specialist": "" if whole else place.specialist,
        "domain": place.domain if single else "",
        "trained_on": place.trained_on if single else "",
        "method_generalist": match.left.method.label if single else "",
        "method_specialist": match.right.method.label if single else "",
        "seeds_generalist": len(match.left.rows) if single else None,
        "seeds_specialist": len(match.right.rows) if single else None,
        "comparisons": len(one.matches),
        "metric": one.metric,
        **{name: None if math.isnan(value) or math.isinf(value) else value for name, value in numbers.items()},
        "groups": tested.n_groups,
        "single_seed": tested.single_seed,
        "margin": findings.settings.margin,
        "confidence": findings.settings.confidence,
        "verdict": one.verdict if judged else "",
        "reason": tested.reason,
        "sentence": statement(one, findings) if judged else "",
    }


def latex_verdicts(findings: Findings) -> str:
    """A LaTeX table of the verdicts, one block a question, or a comment where nothing was compared."""
    if not findings.verdicts:
        return "% no generalist and specialist among the records can be compared\n"
    settings = findings.settings
    caption = latex_escape(
        "Generalist minus specialist: difference of the primary metric with its "
        f"{100 * settings.confidence:g} % interval, and p-value by Holm's correction over all verdicts of the task. "
        f"Equivalent: within ±{settings.margin:g} by two one-sided tests."
    ).replace("±", r"$\pm$")
    out = [
        "% needs \\usepackage{booktabs,graphicx}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{caption}}}",
        r"\label{tab:verdicts}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        r"\begin{tabular}{lllrrl}",
        r"\toprule",
        r"Pair & Domain & Method & Difference & $p$ & Verdict \\",
    ]
    heading = None
    for one in findings.verdicts:
        if heading != (heading := (one.task, one.question.key, one.metric)):
            title = f"{name_text(one.task)}, {one.question.title}, {name_text(one.metric)}"
            out += [r"\midrule", rf"\multicolumn{{6}}{{l}}{{\textit{{{latex_escape(title)}}}}} \\"]
        out.append(" & ".join(_latex_cells(one)) + r" \\")
    return "\n".join([*out, r"\bottomrule", r"\end{tabular}}", r"\end{table}", ""])


def _latex_cells(one: Finding) -> list[str]:
    place, match, tested = one.place, one.matches[0], one.difference
    pair = f"{place.generalist} / {place.specialist}"
    domain, method = where(match), methods(match)
    if len(one.matches) > 1:
        n_pairs = len({(each.place.generalist, each.place.specialist) for each in one.matches})
        pair = pair if n_pairs == 1 else f"mean of {n_pairs} pairs"
        domain, method = f"mean of {len({where(each) for each in one.matches})} domains", ""
    number = "n/a" if math.isnan(tested.estimate) else signed(tested.estimate).replace("\N{MINUS SIGN}", "-")
    spread = "" if math.isnan(tested.low) else interval_text(tested.low, tested.high, minus="-")
    p = "" if math.isnan(one.p) else p_number(one.p)
    return [
        *(latex_escape(text) for text in (pair, domain.replace("(", ", ").replace(")", ""), method)),
        rf"${number}$ {{\scriptsize ${spread}$}}" if spread else f"${number}$",
        f"${p}$" if p else "--",
        one.verdict,
    ]
