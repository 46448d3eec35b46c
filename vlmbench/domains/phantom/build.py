"""Build a domain of a phantom world: splits by patient, examples of a task, labels, and a fingerprint.

Patients of different splits have different numbers, whatever their count: a world grows without moving anybody from
test to train, and what was pre-trained on the training patients of a world has never seen its test patients.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from vlmbench.domains.base import SPLITS, Domain, DomainError, Example, Prompts, Split, TaskName
from vlmbench.domains.phantom.spec import Modality, Scene
from vlmbench.domains.phantom.world import MODALITIES, TABLE, WORLD, WORLD_VERSION, PhantomImages, World

TARGETS = ("binary", "multiclass", "multilabel")
LICENCE = "Apache-2.0 (generated)"

_SHARES: dict[Split, float] = {"train": 0.6, "val": 0.15, "test": 0.25}
_FIRST: dict[Split, int] = {"train": 0, "val": 300_000, "test": 600_000}  # number of the first patient of a split
_PER_SPLIT = 300_000


def label_names(modality: str, target: str) -> tuple[str, ...]:
    """Return the labels of a modality's target (`binary`, `multiclass` or `multilabel`), in the order of the scores.

    Raises:
        DomainError: There is no such modality or target.
    """
    if modality not in TABLE:
        raise DomainError(f"phantom: no modality {modality!r} to diagnose; choose one of {', '.join(MODALITIES)}")
    m = TABLE[modality]
    if target == "binary":
        return m.binary
    if target == "multiclass":
        return tuple(m.prevalence)
    if target == "multilabel" and m.co_occur:
        return m.findings
    able = ", ".join(name for name, other in TABLE.items() if other.co_occur)
    raise DomainError(f"phantom: no target {target!r} for {modality}; choose of {TARGETS} (multilabel: {able})")


def build_phantom(
    name: str,
    modality: str | Sequence[str],
    task: TaskName,
    *,
    target: str = "binary",
    n_patients: int | Mapping[Split, int] = 320,
    seed: int = 0,
    image_size: int = 96,
    questions_per_image: int = 2,
    prompts: Prompts | None = None,
) -> Domain:
    """Build a domain of a phantom world.

    Args:
        name: The domain's name.
        modality: One of `MODALITIES` or `shapes`, or several of them for a mixture (`pretrain` and `vqa` alone).
        task: `diagnosis`, `vqa` or `pretrain`.
        target: Diagnosis: `binary`, `multiclass` or `multilabel`; only the last one has several findings an image.
        n_patients: Patients per modality, in all (60, 15 and 25 % of them train, val and test) or per split. A patient
            has 1 to 4 images, 2.25 on average.
        seed: Of the world, non-negative.
        image_size: Side of the images, in pixels, at least 32.
        questions_per_image: VQA: at least 1; an image of which less can be asked has fewer.
        prompts: Diagnosis: class prompts, whose keys are those of `label_names(modality, target)`.

    Raises:
        DomainError: The arguments do not fit together.
    """
    modalities = (modality,) if isinstance(modality, str) else tuple(modality)
    labels = _check(name, modalities, task, target, seed, image_size, questions_per_image, prompts)
    counts = _counts(name, n_patients)
    world = World(seed, image_size, several=task == "diagnosis" and target == "multilabel")
    examples: list[Example] = []
    for split in SPLITS:
        for m in modalities:
            for number in range(_FIRST[split], _FIRST[split] + counts[split]):
                examples += _examples(world, m, number, split, task, target, questions_per_image)
    images = PhantomImages(world)
    return Domain(
        name=name,
        modality=modalities[0] if len(modalities) == 1 else "mixed",
        task=task,
        examples=examples,
        images=images,
        label_names=labels,
        multi_label=bool(labels) and target == "multilabel",
        prompts=prompts or Prompts({}),
        licence=LICENCE,
        fingerprint=_fingerprint(world, examples),
    )


def _check(
    name: str,
    modalities: tuple[str, ...],
    task: TaskName,
    target: str,
    seed: int,
    image_size: int,
    questions_per_image: int,
    prompts: Prompts | None,
) -> tuple[str, ...]:
    """Check that the arguments fit together and return the label names, which only a diagnosis has."""
    unknown = [m for m in modalities if m not in (*MODALITIES, WORLD)]
    if unknown or not modalities or len(set(modalities)) < len(modalities):
        raise DomainError(
            f"domain {name}: modality must name one or more of {', '.join((*MODALITIES, WORLD))}, each once; "
            f"got {', '.join(modalities) or 'none'}"
        )
    if task not in ("diagnosis", "vqa", "pretrain"):
        raise DomainError(f"domain {name}: task must be diagnosis, vqa or pretrain, got {task!r}")
    if seed < 0 or image_size < 32 or questions_per_image < 1:
        raise DomainError(
            f"domain {name}: seed must be at least 0, image_size at least 32 and questions_per_image at least 1; "
            f"got {seed}, {image_size} and {questions_per_image}"
        )
    if task != "diagnosis":
        return ()
    if len(modalities) > 1:
        raise DomainError(f"domain {name}: a mixture has no common labels; give one modality, or task=pretrain or vqa")
    labels = label_names(modalities[0], target)
    if prompts is not None:
        sides = {"positive": prompts.positive} | ({"negative": prompts.negative} if target == "multilabel" else {})
        for side, texts in sides.items():
            if set(texts) != set(labels) or not all(texts.values()):
                raise DomainError(
                    f"domain {name}: {side} prompts must name each of {', '.join(labels)} and give at least one text; "
                    f"got {', '.join(texts) or 'none'}"
                )
    return labels


def _counts(name: str, n_patients: int | Mapping[Split, int]) -> dict[Split, int]:
    if isinstance(n_patients, int):
        train, val = round(n_patients * _SHARES["train"]), round(n_patients * _SHARES["val"])
        counts: dict[Split, int] = {"train": train, "val": val, "test": n_patients - train - val}
    else:
        extra = set(n_patients) - set(SPLITS)
        if extra:
            raise DomainError(f"domain {name}: n_patients names {sorted(extra)}; the splits are {', '.join(SPLITS)}")
        counts = {split: n_patients.get(split, 0) for split in SPLITS}
    if not all(0 <= n <= _PER_SPLIT for n in counts.values()) or not sum(counts.values()):
        raise DomainError(
            f"domain {name}: n_patients must give 0 to {_PER_SPLIT} patients a split, and one at least; got {counts}"
        )
    return counts


def _examples(
    world: World, modality: str, number: int, split: Split, task: TaskName, target: str, n_questions: int
) -> Iterator[Example]:
    """Yield the examples of one patient."""
    patient = world.patient(modality, number)
    group = f"{modality}/{number:06d}"
    attributes: dict[str, str | float] = {} if modality == WORLD else {"age": patient.age, "sex": patient.sex}
    for image in range(patient.images):
        key = f"{group}/{image}"
        if task == "diagnosis":
            labels = _labels(TABLE[modality], world.scene(modality, number, image, patient), target)
            yield Example(key, key, group, split, labels=labels, attributes=attributes)
        elif task == "pretrain":
            yield Example(key, key, group, split, caption=world.caption(modality, number, image), attributes=attributes)
        else:
            for k, q in enumerate(world.questions(modality, number, image, n_questions)):
                yield Example(
                    f"{key}/{k}",
                    key,
                    group,
                    split,
                    question=q.question,
                    answer=q.answer,
                    answer_type=q.answer_type,
                    options=q.options,
                    attributes=attributes,
                )


def _labels(m: Modality, scene: Scene, target: str) -> tuple[int, ...]:
    if target == "binary":
        return (int(scene.main in m.positive),)
    if target == "multiclass":
        return (tuple(m.prevalence).index(scene.main),)
    return tuple(m.findings.index(finding.name) for finding in scene.findings)


def _fingerprint(world: World, examples: Sequence[Example]) -> str:
    """Hash the version, the world, every example, and the pixels of a first and a last image of each modality."""
    digest = hashlib.sha256(json.dumps([WORLD_VERSION, world.seed, world.image_size, world.several]).encode())
    ends: dict[str, list[str]] = {}
    for e in examples:
        # A phantom never lists options, and examples had no such field when the first fingerprints were taken.
        digest.update(json.dumps({key: value for key, value in asdict(e).items() if key != "listed"}).encode())
        modality = e.image.split("/")[0]
        ends[modality] = [ends.get(modality, [e.image])[0], e.image]
    for keys in ends.values():
        for key in keys:
            modality, number, image = key.split("/")
            digest.update(world.render(modality, int(number), int(image)).tobytes())
    return digest.hexdigest()


def corpus(modalities: Sequence[str] = (*MODALITIES, WORLD), seed: int = 0, n: int = 200) -> list[str]:
    """Return captions, questions and answers in lower case, to train a tokenizer on.

    Args:
        modalities: Which worlds speak.
        seed: Of the worlds.
        n: Training patients per modality.
    """
    world = World(seed)
    lines: list[str] = []
    for modality in modalities:
        for number in range(n):
            for image in range(world.patient(modality, number).images):
                lines.append(world.caption(modality, number, image))
                for q in world.questions(modality, number, image, 4):
                    lines += [q.question.lower(), q.answer]
    return lines
