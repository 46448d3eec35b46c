"""Phantom worlds: deterministic, disjoint by patient, truthful in labels and words, learnable but not trivial."""

from __future__ import annotations

import hashlib
import pickle
import re
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from vlmbench.domains.base import DomainError, Example, ImageError, Prompts, Split, TaskName
from vlmbench.domains.phantom import shapes
from vlmbench.domains.phantom.build import build_phantom, corpus, label_names
from vlmbench.domains.phantom.spec import NORMAL
from vlmbench.domains.phantom.world import MODALITIES, TABLE, WORLD, World

EVERY = (*MODALITIES, WORLD)
FINDINGS = {name: [f for f in label_names(name, "multiclass") if f != NORMAL] for name in MODALITIES}


def _parts(example: Example) -> tuple[str, int, int]:
    modality, patient, image = example.image.split("/")
    return modality, int(patient), int(image)


@pytest.mark.parametrize("modality", EVERY)
def test_the_same_seed_gives_the_same_bytes_in_any_order(modality: str) -> None:
    keys = [f"{modality}/{patient:06d}/0" for patient in (0, 7, 600_003)]
    first = build_phantom("d", modality, "pretrain", n_patients=4).images
    other = build_phantom("d", modality, "pretrain", n_patients={"train": 9}).images
    forward = [np.asarray(first.load(key)) for key in keys]
    backward = [np.asarray(other.load(key)) for key in reversed(keys)][::-1]
    for a, b in zip(forward, backward, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.shape == (96, 96, 3)
        assert a.dtype == np.uint8
        assert a.std() > 10  # something is drawn
    assert not np.array_equal(forward[0], forward[1])


def test_a_fresh_process_draws_the_same_bytes() -> None:
    code = (
        "import hashlib; import numpy as np; from vlmbench.domains.phantom.world import MODALITIES, WORLD, World;"
        "np.random.seed(5);"
        "w = World(3); print(hashlib.sha256(b''.join("
        "w.render(m, p, 0).tobytes() for p in (11, 2) for m in (*MODALITIES, WORLD))).hexdigest())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    world = World(3)
    here = {(m, p): world.render(m, p, 0).tobytes() for m in reversed(EVERY) for p in (2, 11)}
    expected = hashlib.sha256(b"".join(here[m, p] for p in (11, 2) for m in EVERY)).hexdigest()
    assert run.stdout.strip() == expected


@pytest.mark.parametrize("modality", EVERY)
def test_another_seed_gives_other_images_and_fingerprints(modality: str) -> None:
    one, two = (build_phantom("d", modality, "pretrain", n_patients=8, seed=seed) for seed in (0, 1))
    assert one.fingerprint != two.fingerprint
    assert one.fingerprint == build_phantom("d", modality, "pretrain", n_patients=8, seed=0).fingerprint
    assert not np.array_equal(World(0).render(modality, 0, 0), World(1).render(modality, 0, 0))


def test_the_fingerprint_follows_what_the_domain_is_made_of() -> None:
    def print_of(task: TaskName = "diagnosis", **changes: object) -> str:
        return build_phantom("d", "oct", task, **{"n_patients": 8, **changes}).fingerprint  # type: ignore[arg-type]

    prints = [
        print_of(),
        print_of(target="multiclass"),
        print_of(target="multilabel"),
        print_of(n_patients=9),
        print_of(image_size=64),
        print_of("vqa"),
        print_of("vqa", questions_per_image=3),
    ]
    assert len(set(prints)) == len(prints)


@pytest.mark.parametrize("modality", EVERY)
def test_patients_stay_in_one_split_and_a_growing_world_moves_nobody(modality: str) -> None:
    small = build_phantom("d", modality, "vqa", n_patients=20)
    large = build_phantom("d", modality, "vqa", n_patients=40)
    where: dict[str, set[Split]] = defaultdict(set)
    for example in (*small.examples, *large.examples):
        where[example.group].add(example.split)
        assert example.image.startswith(f"{example.group}/")
    assert all(len(splits) == 1 for splits in where.values())
    assert {e.id for e in small.examples} <= {e.id for e in large.examples}
    assert len({e.id for e in large.examples}) == len(large.examples)
    groups = [large.counts()[split]["groups"] for split in ("train", "val", "test")]
    assert groups == [24, 6, 10]


@pytest.mark.parametrize("modality", MODALITIES)
def test_labels_say_what_the_scene_shows(modality: str) -> None:
    world = World(2)
    names = label_names(modality, "multiclass")
    many = build_phantom("d", modality, "diagnosis", target="multiclass", n_patients=60, seed=2)
    two = build_phantom("d", modality, "diagnosis", target="binary", n_patients=60, seed=2)
    for example, coarse in zip(many.examples, two.examples, strict=True):
        scene = world.scene(*_parts(example))
        assert [names[k] for k in example.labels] == [scene.main]
        assert len(scene.findings) <= 1
        assert example.attributes == {"age": scene.age, "sex": scene.sex}
        assert 18 <= scene.age <= 95
        assert scene.sex in ("female", "male")
        assert example.image == coarse.image
    assert {label for e in many.examples for label in e.labels} == set(range(len(names)))
    # Each fine label belongs to one coarse label, and both of them occur.
    pairs = {(a.labels[0], b.labels[0]) for a, b in zip(many.examples, two.examples, strict=True)}
    assert len(pairs) == len(names)
    assert {coarse_label for _, coarse_label in pairs} == {0, 1}


@pytest.mark.parametrize("modality", ["radiograph", "fundus", "oct"])
def test_findings_co_occur_in_the_multi_label_target(modality: str) -> None:
    domain = build_phantom("d", modality, "diagnosis", target="multilabel", n_patients=120)
    world = World(0, several=True)
    for example in domain.examples[:40]:
        assert {domain.label_names[k] for k in example.labels} == {
            f.name for f in world.scene(*_parts(example)).findings
        }
    counts = Counter(len(e.labels) for e in domain.examples)
    assert domain.multi_label
    assert min(counts[0], counts[1], counts[2]) > 0
    assert np.asarray(domain.images.load(domain.examples[0].image)).shape == (96, 96, 3)


@pytest.mark.parametrize("modality", MODALITIES)
def test_every_finding_can_be_seen(modality: str) -> None:
    m = TABLE[modality]
    params = m.view(np.random.default_rng(1), m.anatomy(np.random.default_rng(0), 60.0, "female"))
    for name in FINDINGS[modality]:
        finding = m.place(np.random.default_rng(2), name, params)
        blank = World().scene(modality, 0, 0)
        images = [
            m.render(replace(blank, params=params, findings=found), np.random.default_rng(4), 96).astype(int)
            for found in ((), (finding,))
        ]
        assert np.abs(images[1] - images[0]).max() > 25, name


@pytest.mark.parametrize("modality", EVERY)
def test_closed_questions_need_the_image(modality: str) -> None:
    domain = build_phantom("d", modality, "vqa", n_patients=240)
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for example in domain.examples:
        assert example.question.endswith("?")
        assert example.answer
        assert (example.answer_type == "closed") == bool(example.options)
        if example.options:
            assert example.answer in example.options
            # The world of shapes asks for every colour and shape: pool what asks for the same kind of thing.
            template = example.question
            if modality == WORLD:
                template = re.sub("|".join((*shapes.COLOURS, *shapes.SHAPES)), "*", template).replace("an *", "a *")
            answers[template][example.answer] += 1
    assert len(answers) >= 3
    for template, counted in answers.items():
        if sum(counted.values()) >= 40:
            share = max(counted.values()) / sum(counted.values())
            assert share < 0.7, (template, counted)
    yes_no = sum((c for c in answers.values() if set(c) <= {"yes", "no"}), Counter[str]())
    assert 0.4 < yes_no["yes"] / yes_no.total() < 0.6
    assert {e.answer_type for e in domain.examples} == {"open", "closed"}


def test_answers_agree_with_the_scene() -> None:
    domain = build_phantom("d", "radiograph", "vqa", n_patients=150, questions_per_image=4)
    world, seen = World(), Counter[str]()
    for e in domain.examples:
        scene = world.scene(*_parts(e))
        found = {f.name for f in scene.findings}
        if match := re.fullmatch(r"Is there (?:a )?(.*)\?", e.question):
            assert e.answer == ("yes" if match[1] in found else "no")
        elif match := re.fullmatch(r"Where is the (.*)\?", e.question):
            finding = scene.find(match[1])
            assert finding is not None
            assert e.answer == finding.place
            # The patient's left is at the right of the image.
            assert ("left" in finding.place) == (finding.x > 0.5)
        elif e.question == "What abnormality is seen?":
            assert e.answer == (scene.main if found else "none")
        else:
            continue
        seen[e.question.split()[0]] += 1
    assert min(seen["Is"], seen["Where"], seen["What"]) > 10


def test_captions_name_what_is_there() -> None:
    domain = build_phantom("d", MODALITIES, "pretrain", n_patients=40)
    assert domain.modality == "mixed"
    for e in domain.examples:
        scene = World().scene(*_parts(e))
        assert all(f.name in e.caption for f in scene.findings)
        assert any(word in e.caption for word in ("normal", "healthy", "no abnorm", "without")) or scene.findings
        absent = [name for name in FINDINGS[scene.modality] if not scene.find(name)]
        assert not any(name in e.caption for name in absent)
    assert len({e.caption for e in domain.examples}) > 200
    assert len({e.group for e in domain.examples}) == 40 * len(MODALITIES)


def test_captions_of_shapes_name_shape_and_colour() -> None:
    domain = build_phantom("d", WORLD, "pretrain", n_patients=60)
    for e in domain.examples:
        _, patient, image = _parts(e)
        for thing in World().shapes(patient, image).things:
            assert thing.colour in e.caption
            assert thing.shape in e.caption
        assert not e.attributes


def test_the_vocabulary_is_small_and_plain() -> None:
    words = {word for line in corpus(n=60) for word in line.removesuffix("?").split()}
    assert all(re.fullmatch("[a-z]+", word) for word in words)
    assert 80 < len(words) < 400
    # A tokenizer trained on it knows every word of a domain of another seed.
    domain = build_phantom("d", EVERY, "vqa", n_patients=30, seed=9)
    used = {w for e in domain.examples for w in f"{e.question[:-1]} {e.answer} {' '.join(e.options)}".lower().split()}
    assert used <= words


@pytest.mark.parametrize(
    "key", ["radiograph/12/0", "radiograph/000012", "mri/000012/0", "radiograph/000012/7", "/etc/passwd", ""]
)
def test_a_malformed_key_is_an_image_error(key: str) -> None:
    images = build_phantom("d", "radiograph", "diagnosis", n_patients=4).images
    with pytest.raises(ImageError, match="radiograph/000012/1"):
        images.load(key)


def test_an_image_beyond_the_patients_last_is_an_image_error() -> None:
    images = build_phantom("d", "oct", "diagnosis", n_patients=4).images
    single = next(k for k in range(100) if World().patient("oct", k).images == 1)
    with pytest.raises(ImageError, match="no image 1"):
        images.load(f"oct/{single:06d}/1")


def test_the_cache_is_bounded_and_stays_out_of_pickles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlmbench.domains.phantom.world._CACHE_BYTES", 3 * 96 * 96 * 3)
    images = build_phantom("d", "oct", "diagnosis", n_patients=4).images
    keys = [f"oct/{k:06d}/0" for k in range(5)]
    first = [images.load(key).tobytes() for key in keys]
    again = pickle.loads(pickle.dumps(images))
    assert len(images._cache) == 3  # type: ignore[attr-defined]
    assert len(again._cache) == 0
    assert [again.load(key).tobytes() for key in keys] == first
    assert [images.load(key).tobytes() for key in keys] == first


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modality": "mri"}, "modality must name"),
        ({"modality": ()}, "modality must name"),
        ({"modality": ("oct", "oct")}, "each once"),
        ({"modality": ("oct", "fundus")}, "mixture"),
        ({"modality": "shapes"}, "no modality 'shapes' to diagnose"),
        ({"modality": "dermoscopy", "target": "multilabel"}, "radiograph, fundus, oct"),
        ({"target": "severity"}, "no target 'severity'"),
        ({"task": "segmentation"}, "task must be"),
        ({"seed": -1}, "seed must be"),
        ({"n_patients": 0}, "one at least"),
        ({"n_patients": {"training": 5}}, "the splits are train, val, test"),
        ({"prompts": Prompts({"normal": ("a normal scan",)})}, "positive prompts must name each of normal, abnormal"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(changes: dict[str, object], message: str) -> None:
    arguments = {"modality": "oct", "task": "diagnosis", "n_patients": 8, **changes}
    with pytest.raises(DomainError, match=message):
        build_phantom("d", **arguments)  # type: ignore[arg-type]


def test_prompts_of_the_caller_are_kept() -> None:
    prompts = Prompts({"benign": ("a benign lesion",), "malignant": ("a malignant lesion", "a melanoma")})
    domain = build_phantom("d", "dermoscopy", "diagnosis", n_patients=8, prompts=prompts)
    assert domain.prompts is prompts
    assert domain.label_names == ("benign", "malignant")


def _features(pixels: np.ndarray) -> np.ndarray:
    """A coarse image, and statistics of 8 x 8 tiles in order of size: what a small net sees first."""
    coarse = pixels.astype(float).reshape(16, 4, 16, 4, 3).mean((1, 3)) / 255
    tiles = pixels.mean(2).reshape(8, 8, 8, 8).transpose(0, 2, 1, 3).reshape(64, 64) / 255
    return np.concatenate([coarse.ravel(), *(np.sort(f(tiles, axis=1)) for f in (np.mean, np.std, np.min, np.max))])


def _auroc(features: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> float:
    model = make_pipeline(
        PCA(min(60, features["train"].shape[1]), svd_solver="randomized", random_state=0),
        StandardScaler(),
        LogisticRegression(C=0.03, max_iter=200),
    ).fit(features["train"], labels["train"])
    return float(roc_auc_score(labels["test"], model.predict_proba(features["test"]), multi_class="ovr"))


@pytest.mark.parametrize("modality", MODALITIES)
def test_findings_are_learnable_yet_not_given_away_by_colour_or_attributes(modality: str) -> None:
    domain = build_phantom(
        "d", modality, "diagnosis", target="multiclass", n_patients={"train": 60, "test": 36}, image_size=64
    )
    rows = {split: domain.split(split) for split in ("train", "test")}
    pixels = {s: [np.asarray(domain.images.load(e.image)) for e in r] for s, r in rows.items()}
    labels = {s: np.array([e.labels[0] for e in r]) for s, r in rows.items()}
    told = {s: [(e.attributes["age"], e.attributes["sex"] == "male") for e in r] for s, r in rows.items()}
    seen = _auroc({s: np.stack([_features(p) for p in images]) for s, images in pixels.items()}, labels)
    colour = _auroc({s: np.stack([p.mean((0, 1)) for p in images]) for s, images in pixels.items()}, labels)
    known = _auroc({s: np.array(pairs, float) for s, pairs in told.items()}, labels)
    assert 0.63 < seen < 0.99
    assert colour < 0.85
    assert known < 0.68
