"""Few-shot subsets: whole groups, every label, nested in size, the same whatever the order of the rows."""

import dataclasses
import itertools
import json
import logging
import random
from collections import Counter, defaultdict

import pytest

from vlmbench.cell.domain import build_domain
from vlmbench.config import schema
from vlmbench.config.domain_checks import check_evaluation, check_subset
from vlmbench.config.faults import ConfigError
from vlmbench.domains.base import Domain, Example
from vlmbench.domains.subset import few_shot, take_fraction, take_shots
from vlmbench.records.identity import digest, relevant
from vlmbench.reporting.grids import cell_matrices
from vlmbench.reporting.load import row_from_record
from vlmbench.reporting.notes import warnings

PHANTOM = schema.PhantomDomainConfig(name="phantom", modality="ultrasound", modalities=["ultrasound"], patients=60)
TABLES = range(30)
FRACTIONS = (0.01, 0.05, 0.1, 0.25, 0.5, 0.9, 1.0)
SHOTS = (1, 2, 4, 9, 16, 50)


def table(seed, *, several=None):
    """Return ids, groups and labels of a random table: groups of many sizes, labels from common to rare."""
    rng = random.Random(seed)
    several = rng.random() < 0.5 if several is None else several
    names = [f"label {i}" for i in range(rng.randrange(2, 7))]
    weights = [1 / (1 + i) ** 2 for i in range(len(names))]
    groups, labels = [], []
    for patient in range(rng.randrange(5, 200)):
        usual = rng.choices(names, weights)[0]
        for _ in range(rng.randrange(1, 5)):
            groups.append(f"p{patient}")
            if several:
                labels.append(tuple(sorted(set(rng.choices(names, weights, k=rng.randrange(0, 4))))))
            else:
                labels.append((usual if rng.random() < 0.8 else rng.choice(names),))
    return [f"image {i}" for i in range(len(groups))], groups, labels


@pytest.mark.parametrize("seed", TABLES)
def test_a_share_has_whole_groups_every_label_and_lies_inside_a_larger_one(seed):
    _, groups, labels = table(seed)
    sizes, everything = Counter(groups), {label for some in labels for label in some or ("",)}
    smaller: set[int] = set()
    for fraction in FRACTIONS:
        rows = take_fraction(groups, labels, fraction, seed)
        assert rows == sorted(set(rows))
        taken = Counter(groups[i] for i in rows)
        assert all(sizes[group] == count for group, count in taken.items())
        assert {label for i in rows for label in labels[i] or ("",)} == everything
        assert smaller <= set(rows)
        # No more than one group above what is asked for, but for the labels that would have none.
        extra = max(sizes.values()) * (1 + len(everything))
        assert fraction * len(groups) - 1e-9 <= len(rows) < fraction * len(groups) + extra
        smaller = set(rows)
    assert len(smaller) == len(groups)


@pytest.mark.parametrize("seed", TABLES)
def test_shots_give_each_label_so_many_or_all_and_lie_inside_more_shots(seed):
    ids, groups, labels = table(seed)
    has = Counter(label for some in labels for label in some or ("",))
    smaller: set[int] = set()
    for shots in SHOTS:
        rows = take_shots(ids, groups, labels, shots, seed)
        assert rows == sorted(set(rows))
        found = Counter(label for i in rows for label in labels[i] or ("",))
        assert all(found[label] >= min(shots, count) for label, count in has.items())
        assert smaller <= set(rows)
        smaller = set(rows)
        if all(len(some) == 1 for some in labels):
            assert found == {label: min(shots, count) for label, count in has.items()}


@pytest.mark.parametrize("seed", TABLES)
def test_the_order_of_the_rows_decides_nothing(seed):
    ids, groups, labels = table(seed)
    mixed = list(range(len(ids)))
    random.Random(seed).shuffle(mixed)
    again = [[column[i] for i in mixed] for column in (ids, groups, labels)]
    for fraction in (0.1, 0.5):
        rows = take_fraction(again[1], again[2], fraction, 3)
        assert {mixed[i] for i in rows} == set(take_fraction(groups, labels, fraction, 3))
    rows = take_shots(again[0], again[1], again[2], 4, 3)
    assert {mixed[i] for i in rows} == set(take_shots(ids, groups, labels, 4, 3))


@pytest.mark.parametrize("seed", TABLES)
def test_shots_come_from_as_many_groups_as_there_are(seed):
    ids, groups, labels = table(seed, several=False)
    of = defaultdict(set)
    for group, (label,) in zip(groups, labels, strict=True):
        of[label].add(group)
    for shots in SHOTS:
        used = defaultdict(set)
        for i in take_shots(ids, groups, labels, shots, seed):
            used[labels[i][0]].add(groups[i])
        assert {label: len(some) for label, some in used.items()} == {
            label: min(shots, len(some)) for label, some in of.items()
        }


def test_an_example_counts_for_all_of_its_labels():
    ids = [str(i) for i in range(40)]
    labels = [("a", "b"), ("a",), ("b",), ()] * 10
    for shots in (1, 4, 8):
        rows = take_shots(ids, ids, labels, shots, 0)
        has = Counter(label for i in rows for label in labels[i] or ("none",))
        assert has["none"] == shots
        assert shots <= min(has["a"], has["b"])
        # Each turn adds a row for a label that still lacks one, never two for the same.
        assert len(rows) <= 3 * shots
    both = [("a", "b")] * 40
    assert len(take_shots(ids, ids, both, 4, 0)) == 4


def test_labels_keep_their_shares():
    rng = random.Random(5)
    names = ["common", "less", "rare"]
    groups = [f"p{i // 2}" for i in range(4000)]
    each = rng.choices(names, [0.7, 0.25, 0.05], k=2000)
    labels = [(each[i // 2],) for i in range(4000)]
    whole = Counter(label for (label,) in labels)
    for fraction, seed in itertools.product((0.05, 0.1, 0.3), range(5)):
        part = Counter(labels[i][0] for i in take_fraction(groups, labels, fraction, seed))
        for label in names:
            assert abs(part[label] - fraction * whole[label]) <= 4, (fraction, seed, label)


def test_several_labels_keep_their_shares():
    rng = random.Random(6)
    names = [f"finding {i}" for i in range(8)]
    labels = [tuple(name for i, name in enumerate(names) if rng.random() < 0.3 / (1 + i)) for _ in range(6000)]
    groups = [f"p{i // 3}" for i in range(6000)]
    whole = Counter(label for some in labels for label in some)
    for fraction, seed in itertools.product((0.1, 0.3), range(3)):
        part = Counter(label for i in take_fraction(groups, labels, fraction, seed) for label in labels[i])
        for label in names:
            wanted = fraction * whole[label]
            assert abs(part[label] - wanted) <= 5 + 3 * wanted**0.5, (fraction, seed, label)


def test_another_seed_is_another_choice():
    ids, groups, labels = table(1)
    assert take_fraction(groups, labels, 0.3, 0) != take_fraction(groups, labels, 0.3, 1)
    assert take_shots(ids, groups, labels, 3, 0) != take_shots(ids, groups, labels, 3, 1)


def test_only_train_gets_smaller_and_what_was_set_aside_is_told():
    whole = build_domain(PHANTOM, "diagnosis")
    small = build_domain(dataclasses.replace(PHANTOM, fraction=0.2, fraction_seed=1), "diagnosis")
    for split in ("val", "test"):
        assert small.split(split) == whole.split(split)
    assert 0.2 <= len(small.split("train")) / len(whole.split("train")) < 0.3
    (told,) = small.left_out
    assert told["examples"] == len(whole.split("train")) - len(small.split("train"))
    assert told["reason"] == "fraction=0.2, fraction_seed=1: set aside from train"
    assert small.name == "phantom@20%-s1"
    shots = build_domain(dataclasses.replace(PHANTOM, shots=3), "diagnosis")
    assert shots.name == "phantom@3shots"
    assert shots.counts()["train"]["examples"] == 6
    assert shots.counts()["train"]["groups"] >= 3
    assert len({whole.fingerprint, small.fingerprint, shots.fingerprint}) == 3
    assert few_shot(whole) is whole


def test_questions_keep_their_kinds_and_captions_their_share():
    few = dataclasses.replace(PHANTOM, fraction=0.1)
    counts = build_domain(few, "vqa").counts()["train"]
    assert counts["type:open"] > 0
    assert counts["type:closed"] > 0
    whole, small = (build_domain(config, "pretrain").counts()["train"] for config in (PHANTOM, few))
    assert 0.1 <= small["examples"] / whole["examples"] < 0.2


def test_an_external_test_set_stays_as_it_is():
    whole = build_domain(PHANTOM, "diagnosis")
    external = dataclasses.replace(whole, examples=whole.split("test"))
    assert few_shot(external, fraction=0.1) is external


@pytest.mark.parametrize(
    ("settings", "task", "words"),
    [
        ({"fraction": 0.0}, "diagnosis", "domain.fraction=0 leaves nothing to train on"),
        ({"fraction": 0.1, "shots": 4}, "diagnosis", "both choose training examples"),
        ({"shots": 4}, "vqa", "task=vqa has no labels"),
        ({"shots": 4}, "pretrain", "domain.fraction=... instead"),
    ],
)
def test_a_choice_that_cannot_be_is_refused(settings, task, words):
    with pytest.raises(ConfigError, match=words.replace(".", r"\.")):
        check_subset(dataclasses.replace(PHANTOM, **settings), task)


def test_an_evaluation_takes_no_subset():
    with pytest.raises(ConfigError, match="an evaluation trains on none"):
        check_evaluation(dataclasses.replace(PHANTOM, shots=2))
    check_evaluation(PHANTOM)


def test_the_command_refuses_before_torch(command):
    status, _, err = command("train", "domain.fraction=0")
    assert status == 2
    assert "domain.fraction=0 leaves nothing" in err
    status, _, err = command("train", "domain.fraction=1.5")
    assert status == 2
    assert "between 0 and 1" in err


def test_the_identity_of_a_cell_knows_its_subset():
    names = set()
    for settings in ({}, {"fraction": 0.1}, {"fraction": 0.1, "fraction_seed": 1}, {"shots": 4}):
        domain = dataclasses.asdict(dataclasses.replace(PHANTOM, **settings))
        names.add(digest(relevant({"domain": domain})))
    assert len(names) == 4


def test_a_cell_on_a_share_says_so_wherever_it_is_named(train):
    ran = train("finetune=linear_probe", "domain.fraction=0.5", "domain.fraction_seed=2")
    assert ran.status == 0, ran.err
    assert ran.record["cell"]["domain"] == "phantom_radiograph@50%-s2"
    assert "phantom_radiograph@50%-s2" in ran.cells[0].name
    (told,) = ran.record["data"]["left_out"]
    assert told["examples"] > 0
    ages = ran.record["data"]["subgroups"]["age"]
    assert sum(count["test"] for count in ages.values()) == ran.record["n"]["examples"]


def test_the_report_never_averages_over_shares():
    def record(share, seed, value):
        domain = dataclasses.replace(PHANTOM, fraction=share)
        cell = {"model": "m", "task": "diagnosis", "finetune": "lora", "scope": "vision", "seed": seed}
        return {
            "schema": 1,
            "kind": "cell",
            "status": "done",
            "identity": f"{share}{seed}",
            "cell": cell | {"domain": domain.shown_name()},
            "role": "generalist",
            "modality": "ultrasound",
            "primary_metric": "auroc",
            "metrics": {"auroc": {"value": value}},
            "data": {"left_out": [{"image": "", "reason": f"fraction={share:g}", "examples": 7}]},
            "config": json.loads(json.dumps({"domain": dataclasses.asdict(domain), "finetune": {}, "trainer": {}})),
        }

    rows = [row_from_record(record(share, seed, value)) for share, seed, value in [(0.05, 0, 0.6), (0.5, 0, 0.8)]]
    (matrix,) = cell_matrices(rows)
    assert [name for name, _ in matrix.domains] == ["phantom@5%", "phantom@50%"]
    values = sorted(tile.value for line in matrix.lines for tile in line.tiles if tile.value is not None)
    assert values == [0.6, 0.8]
    told = warnings(rows, [], [])
    assert "phantom@5% (diagnosis): 7 examples left out: fraction=0.05." in told


def test_more_shots_than_there_are_examples_take_no_longer():
    assert take_shots(["a", "b", "c"], ["p", "q", "q"], [("x",), ("y",), ("y",)], 10**12, 0) == [0, 1, 2]


def test_a_share_that_whole_groups_make_much_larger_is_told(caplog):
    rows = [Example(str(i), str(i), "giant" if i < 90 else f"p{i}", "train", (i % 2,)) for i in range(100)]
    domain = Domain("d", "m", "diagnosis", rows, PHANTOM)  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING):
        few_shot(domain, fraction=0.5)
    assert not caplog.text
    sizes = [len(few_shot(domain, fraction=0.1, seed=seed).examples) for seed in range(20)]
    assert max(sizes) >= 90
    assert f"d: fraction=0.1 takes {max(sizes)} of 100 training examples, as groups stay whole" in caplog.text
