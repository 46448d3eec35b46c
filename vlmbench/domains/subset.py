"""Fewer training examples: a share of the train split in whole groups, or so many examples of each label.

What is chosen depends on the names of groups and examples, their labels and the seed, never on the order of the rows:
every group has a place of its own, a hash of its name and the seed. Larger choices contain smaller ones of one seed.
Validation and test stay as they are, so that every size is selected and tested on the same rows.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import logging
import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence

from vlmbench.domains.base import Domain, Example, Split

log = logging.getLogger(__name__)

Labels = tuple[Hashable, ...]
#: What an example without any label is counted as: where several labels may be absent, their absence is learned too.
_NO_LABEL: Labels = ("",)
#: A part of a training split with a smaller share of it than this is encoded by itself.
SMALL_SHARE = 1 / 20


def take_fraction(groups: Sequence[str], labels: Sequence[Labels], fraction: float, seed: int) -> list[int]:
    """Return the rows of a share of the groups, spread over the labels as all of them are.

    Groups are put into one order, and the share is its shortest beginning with enough rows. In that order the groups
    of each label lie evenly: a group belongs to the rarest of its labels, and its place among those of the same label
    is the share of their rows that come before it (systematic sampling with a random start, Cochran 1977, "Sampling
    techniques", chapter 8). Within a label the groups of the same combination of labels are spread in the same way. A
    label that would have no row gets the first group that has it.

    Args:
        groups: Per row, the unit that stays together.
        labels: Per row, its labels; none for a row without.
        fraction: Share of rows, above 0 and at most 1.
        seed: Of the order.

    Returns:
        Indices of rows, ascending; those of a smaller fraction are among those of a larger one.
    """
    rows: dict[str, int] = Counter(groups)
    held: dict[str, set[Hashable]] = defaultdict(set)
    for group, some in zip(groups, labels, strict=True):
        held[group].update(some or _NO_LABEL)
    order = _spread(rows, held, seed)
    wanted = math.ceil(round(fraction * len(groups), 9))
    taken: set[str] = set()
    count = 0
    for group in order:
        if count >= wanted:
            break
        taken.add(group)
        count += rows[group]
    first: dict[Hashable, str] = {}
    for group in order:
        for label in held[group]:
            first.setdefault(label, group)
    # The first group of a label is in every longer beginning that has the label, so that shares stay nested.
    taken.update(first.values())
    return [i for i, group in enumerate(groups) if group in taken]


def take_shots(ids: Sequence[str], groups: Sequence[str], labels: Sequence[Labels], shots: int, seed: int) -> list[int]:
    """Return the rows that give each label so many examples, or all that it has where those are fewer.

    The labels take turns, the rarest first: one that has fewer examples than turns have passed takes its next, one of
    each of its groups before a second of any. So an example of several labels counts for all of them, and a label may
    end up with more than it asked for. Examples without a label count as of a label of their own.

    Args:
        ids: Per row, its unique name.
        groups: Per row, its group.
        labels: Per row, its labels; none for a row without.
        shots: Examples of each label, at least 1.
        seed: Of the order.

    Returns:
        Indices of rows, ascending; those of fewer shots are among those of more.
    """
    carried = [some or _NO_LABEL for some in labels]
    members: dict[Hashable, list[int]] = defaultdict(list)
    for i, some in enumerate(carried):
        for label in some:
            members[label].append(i)
    queues = {}
    for label in sorted(members, key=lambda name: (len(members[name]), str(name))):
        ranked = sorted(members[label], key=lambda i: _place(seed, ids[i]))
        round_of: list[tuple[int, float, int]] = []
        seen: Counter[str] = Counter()
        for i in ranked:
            round_of.append((seen[groups[i]], _place(seed, groups[i]), i))
            seen[groups[i]] += 1
        queues[label] = iter([i for *_, i in sorted(round_of)])
    taken: set[int] = set()
    has: Counter[Hashable] = Counter()
    for turn in range(1, min(shots, max(map(len, members.values()))) + 1):
        for label, queue in queues.items():
            if has[label] < turn:
                for i in itertools.islice((i for i in queue if i not in taken), 1):
                    taken.add(i)
                    has.update(carried[i])
    return sorted(taken)


def few_shot(domain: Domain, *, fraction: float = 1.0, shots: int = 0, seed: int = 0) -> Domain:
    """Return the domain with fewer training examples; validation and test as they are.

    Args:
        domain: With all of its examples.
        fraction: Share of the train split, in whole groups; diagnosis spreads it over the labels, VQA over the kinds
            of answers.
        shots: Diagnosis: examples of each label; 0 for all.
        seed: Of either choice.
    """
    train = domain.split("train")
    if not train or (fraction >= 1 and not shots):
        return domain
    groups, labels = [row.group for row in train], [_labels(row) for row in train]
    if shots:
        kept = take_shots([row.id for row in train], groups, labels, shots, seed)
        what = f"shots={shots}"
    else:
        kept = take_fraction(groups, labels, fraction, seed)
        what = f"fraction={fraction:g}"
        if len(kept) > 2 * math.ceil(fraction * len(train)):
            log.warning(
                "%s: %s takes %d of %d training examples, as groups stay whole and every label keeps one.",
                domain.name,
                what,
                len(kept),
                len(train),
            )
    chosen = {train[i].id for i in kept}
    said = f"{what}, fraction_seed={seed}: set aside from train"
    aside = {"image": "", "reason": said, "examples": len(train) - len(kept)}
    found = hashlib.sha256(domain.fingerprint.encode())
    for key in sorted(chosen):
        found.update(f"\n{key}".encode())
    return dataclasses.replace(
        domain,
        examples=[row for row in domain.examples if row.split != "train" or row.id in chosen],
        fingerprint=found.hexdigest(),
        left_out=[*domain.left_out, aside],
        whole=domain,
    )


def encoded_with(domain: Domain, split: Split) -> list[Example]:
    """Return the examples whose images are encoded together where those of a split are wanted.

    For a part of a training split all of it, so that all parts share one encoding: the fractions and seeds of a
    learning curve, and the cells on the whole. A part of less than a twentieth is encoded by itself: each such part
    costs a curve at most a twentieth more, while a cell that is alone would encode twenty times what it needs and more.
    Nothing but the two sizes decides, never what is encoded already, so that results do not depend on the order.
    """
    wanted = domain.split(split)
    if split != "train" or domain.whole is None:
        return wanted
    whole = domain.whole.split(split)
    return whole if len(wanted) >= SMALL_SHARE * len(whole) else wanted


def _labels(row: Example) -> Labels:
    return row.labels or ((row.answer_type,) if row.answer_type else ())


def _place(seed: int, name: str) -> float:
    """Return a number in [0, 1) that the seed and the name decide."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:7], "big") / 2**56


def _spread(rows: dict[str, int], held: dict[str, set[Hashable]], seed: int) -> list[str]:
    """Return the groups in an order of which every beginning has the labels in about the shares of the whole."""
    holders = Counter(label for some in held.values() for label in some)
    strata: dict[Hashable, dict[tuple[str, ...], list[str]]] = defaultdict(lambda: defaultdict(list))
    for group, some in held.items():
        rarest = min(some, key=lambda label: (holders[label], str(label)))
        strata[rarest][tuple(sorted(map(str, some)))].append(group)
    placed: list[tuple[float, str]] = []
    for label, combinations in strata.items():
        within: list[tuple[float, str]] = []
        for combination, members in combinations.items():
            members.sort(key=lambda group: (_place(seed, group), group))
            within += _systematic(members, rows, _place(seed, f"{label}/{combination}"))
        placed += _systematic([group for _, group in sorted(within)], rows, _place(seed, str(label)))
    return [group for _, group in sorted(placed)]


def _systematic(groups: Sequence[str], rows: dict[str, int], start: float) -> list[tuple[float, str]]:
    """Return each group with the share of all rows at which it is drawn, between 0 and 1."""
    total = sum(rows[group] for group in groups)
    before, out = 0, []
    for group in groups:
        out.append(((before + start * rows[group]) / total, group))
        before += rows[group]
    return out
