"""Captions and questions of the medical modalities, from a small grammar over a scene."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vlmbench.domains.phantom.spec import NORMAL, Finding, Modality, Question, Rng, Scene

# Findings that take no article: "drusen", but "a nodule".
_UNCOUNTED = frozenset(
    {
        "consolidation",
        "cardiomegaly",
        "glaucoma",
        "haemorrhage",
        "exudate",
        "inflammation",
        "fibrosis",
        "macular oedema",
        "drusen",
        "subretinal fluid",
    }
)
_PLURAL = frozenset({"drusen"})
_NONE = "no abnormality"
# Nobody asks a normal image where its finding is: its yes/no questions have fewer rivals, and weigh less in return.
_FEW_RIVALS = 0.6


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _with_article(name: str) -> str:
    return name if name in _UNCOUNTED else f"{_article(name)} {name}"


def _verb(name: str) -> str:
    return "are" if name in _PLURAL else "is"


def _pick(rng: Rng, *choices: str) -> str:
    return choices[int(rng.integers(len(choices)))]


def _phrase(rng: Rng, finding: Finding) -> str:
    """Say a finding, now and then with its size and its place."""
    words = _with_article(finding.name)
    if finding.size and rng.random() < 0.6:
        sized = f"{finding.size} {finding.name}"
        words = sized if finding.name in _UNCOUNTED else f"a {sized}"
    if finding.place and rng.random() < 0.75:
        words += f" in the {finding.place}"
    return words


def caption(modality: Modality, scene: Scene, rng: Rng) -> str:
    """Return one caption, in lower case and without punctuation, of varied wording."""
    title = _pick(rng, *modality.titles)
    verdict = modality.binary[scene.main in modality.positive]
    if not scene.findings:
        return _pick(
            rng,
            f"normal {title}",
            f"a normal {title}",
            f"a healthy {title}",
            f"{title} with {_NONE}",
            f"{title} without abnormality",
            f"{verdict} {title} with {_NONE}",
        )
    seen = " and ".join(_phrase(rng, finding) for finding in scene.findings)
    return _pick(
        rng,
        f"{title} with {seen}",
        f"{title} showing {seen}",
        f"{_article(title)} {title} of a patient with {seen}",
        f"{seen} on {_article(title)} {title}",
        f"{verdict} {title} with {seen}",
        f"{_article(verdict)} {verdict} {title} showing {seen}",
    )


def questions(modality: Modality, scene: Scene, rng: Rng, count: int) -> list[Question]:
    """Return up to `count` different questions about one image.

    The weights keep each yes/no question near, not at, as many `yes` as `no`, so that its wording does not give the
    answer away.
    """
    normal = modality.prevalence.get(NORMAL, 0.0)
    rivals = 1.0 if scene.findings else _FEW_RIVALS
    weight, for_finding = _yes_no(modality, scene, rng)
    pool = [(1.5 * weight * rivals, for_finding), (0.25, _which_modality(modality)), (1.2, _what(modality, scene))]
    if modality.has_normal:
        pool.append((1.6 * rivals * (normal if scene.findings else 1 - normal), _is_normal(modality, scene)))
    else:
        pool.append((0.7, _is_positive(modality, scene)))
    for finding in scene.findings:
        name, verb = finding.name, _verb(finding.name)
        if finding.side:
            text = f"{verb.capitalize()} the {name} on the left or the right?"
            pool.append((0.7, Question(text, finding.side, "closed", ("left", "right"))))
        if finding.size:
            text = f"{verb.capitalize()} the {name} small or large?"
            pool.append((0.5, Question(text, finding.size, "closed", ("small", "large"))))
        if finding.place:
            pool.append((0.6, Question(f"Where {verb} the {name}?", finding.place, "open")))
    return choose(pool, rng, count)


def choose(pool: Sequence[tuple[float, Question]], rng: Rng, count: int) -> list[Question]:
    """Draw up to `count` questions without replacement, in proportion to their weights.

    Each question starts an exponential race with its weight as the rate; the first ones home are drawn
    (Efraimidis and Spirakis, 2006, Inf Process Lett 97:181).
    """
    arrival = [float(rng.exponential()) / weight for weight, _ in pool]
    order = sorted(range(len(pool)), key=arrival.__getitem__)
    return [pool[i][1] for i in order[:count]]


def _yes_no(modality: Modality, scene: Scene, rng: Rng) -> tuple[float, Question]:
    """Return a question for a finding, and its weight.

    A finding of prevalence p is asked for with weight 1 - p where it is present and p where it is absent, which makes
    yes and no equally frequent for each finding.
    """
    present = [scene.find(name) is not None for name in modality.findings]
    share = [modality.prevalence[name] for name in modality.findings]
    weights = np.array([1 - p if here else p for p, here in zip(share, present, strict=True)])
    k = int(rng.choice(len(weights), p=weights / weights.sum()))
    name = modality.findings[k]
    text = f"{_verb(name).capitalize()} there {_with_article(name)}?"
    return float(weights.sum()), Question(text, "yes" if present[k] else "no", "closed", ("yes", "no"))


def _is_normal(modality: Modality, scene: Scene) -> Question:
    answer = "no" if scene.findings else "yes"
    return Question(f"Is this {modality.titles[0]} {NORMAL}?", answer, "closed", ("yes", "no"))


def _is_positive(modality: Modality, scene: Scene) -> Question:
    answer = "yes" if scene.main in modality.positive else "no"
    return Question(f"Is the lesion {modality.binary[1]}?", answer, "closed", ("yes", "no"))


def _which_modality(modality: Modality) -> Question:
    return Question("What imaging modality is this?", modality.titles[0], "open")


def _what(modality: Modality, scene: Scene) -> Question:
    if not modality.has_normal:
        return Question("What kind of lesion is seen?", scene.main, "open")
    names = " and ".join(finding.name for finding in scene.findings)
    return Question("What abnormality is seen?", names or "none", "open")
