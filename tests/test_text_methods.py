"""CoOp, CLIP-Adapter and LP++ against their published definitions, on every family of text towers."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from releases import contrastive, contrastive_open, conversions_contrastive
from torch.nn import functional

from vlmbench.backbones.loaders import load
from vlmbench.errors import UserError
from vlmbench.tuning.clip_adapter import AdaptedClassifier
from vlmbench.tuning.coop import ContextClassifier, UnpromptableError, ids_of, placed_slots
from vlmbench.tuning.heads import class_embeddings, load_classifier, save_classifier, text_logits
from vlmbench.tuning.lp_text import BlendedClassifier, choose, iterates, start
from vlmbench.weights.source import ASSETS

MAKERS = contrastive.MAKERS | contrastive_open.MAKERS | conversions_contrastive.MAKERS
CONF = Path(__file__).parents[1] / "conf" / "model"
# Each way in which a text tower is fed: by transformers' CLIP, SigLIP, BLIP and BLIP-2, open_clip's two, and BERTs.
TOWERS = ["clip", "siglip", "blip", "blip2", "biomedclip", "quiltnet", "medclip", "pmc_clip", "conch"]
NAMES, OWNERS = ["nodule", "pleural effusion", "lung"], [0, 1, 1]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Load a small release as its YAML says; the checkpoints are written once."""
    made: dict[str, Path] = {}

    def load_it(name, dtype=torch.float32):
        if name == "tiny_clip":
            return load("hf_clip", str(ASSETS / name), dtype=dtype).eval()
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            MAKERS[name](made[name])
        config = yaml.safe_load((CONF / f"{name}.yaml").read_text())
        companions = {key: str(made[name] / key) for key in config.get("companions", {})}
        source, settings = str(made[name] / "main"), config.get("settings", {})
        return load(config.get("loader", "hf_clip"), source, dtype=dtype, companions=companions, **settings).eval()

    return load_it


@pytest.mark.parametrize("name", TOWERS)
def test_a_context_is_what_the_text_tower_reads_in_its_place(loaded, name):
    backbone = loaded(name)
    torch.manual_seed(0)
    learned = ContextClassifier(backbone, NAMES, OWNERS, length=4, class_specific=True)
    # The same prompts where the vectors are rows of the vocabulary: of words that no prompt has.
    tokens, slots = placed_slots(backbone, [f"{n}." for n in NAMES], 4)
    assert [row.tolist() for row in slots.diff(dim=1)] == [[1, 1, 1]] * 3
    twin, ids = copy.deepcopy(backbone), ids_of(tokens)
    table = twin.model.get_submodule(learned._embedding).weight.data
    free = [index for index in range(len(table)) if index not in set(ids.flatten().tolist())][5:13]
    for group in range(2):
        table[free[4 * group : 4 * group + 4]] = learned.contexts.data[0, group]
    for row, owner in enumerate(OWNERS):
        ids[row, slots[row]] = torch.tensor(free[4 * owner : 4 * owner + 4])
    expected = class_embeddings(twin.encode_text(tokens), OWNERS)
    torch.testing.assert_close(learned.encode(backbone, learned.contexts[0]), expected, atol=1e-6, rtol=1e-5)
    images = torch.randn(5, *([3] if name == "blip2" else []), expected.shape[1])
    logits = learned(backbone, images)
    torch.testing.assert_close(logits, text_logits(images, expected, backbone.logit_scale))
    functional.cross_entropy(logits, torch.tensor([0, 1, 0, 1, 1])).backward()
    gradient = learned.contexts.grad
    assert gradient is not None
    assert gradient.abs().amax(-1).gt(0).all()  # of every vector


@pytest.mark.parametrize("name", [tower for tower in TOWERS if tower != "siglip"])
def test_a_context_that_starts_from_words_is_those_words(loaded, name):
    backbone = loaded(name)
    learned = ContextClassifier(backbone, NAMES, OWNERS, words="a photo of a")
    said = class_embeddings(backbone.encode_text(backbone.tokenize([f"a photo of a {n}." for n in NAMES])), OWNERS)
    torch.testing.assert_close(learned.encode(backbone, learned.contexts[0]), said, atol=1e-6, rtol=0)
    assert learned.contexts.shape[:3] == (1, 1, 4)


def test_the_context_is_drawn_as_published_and_counted(loaded):
    backbone = loaded("tiny_clip")
    torch.manual_seed(0)
    unified = ContextClassifier(backbone, NAMES, OWNERS)
    assert unified.contexts.shape == (1, 1, 16, 128)
    assert float(unified.contexts.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert [name for name, _ in unified.named_parameters()] == ["contexts"]
    own = ContextClassifier(backbone, NAMES, OWNERS, class_specific=True, multi_label=True)
    assert own.contexts.shape == (2, 2, 16, 128)


def test_with_several_labels_a_class_is_its_presence_against_its_absence(loaded):
    backbone = loaded("tiny_clip")
    learned = ContextClassifier(backbone, NAMES, OWNERS, length=4, multi_label=True)
    images = torch.randn(5, 128)
    present, absent = (text_logits(images, learned.encode(backbone, s), backbone.logit_scale) for s in learned.contexts)
    pair = torch.stack([present, absent]).softmax(0)[0]
    torch.testing.assert_close(learned(backbone, images).sigmoid(), pair)


def test_kept_class_embeddings_follow_the_context(loaded):
    backbone = loaded("tiny_clip")
    learned, other = (ContextClassifier(backbone, NAMES, OWNERS, length=4) for _ in range(2))
    images = torch.randn(5, 128)
    with torch.no_grad():
        before = learned(backbone, images)
        assert torch.equal(learned(backbone, images), before)
        learned.load_state_dict(other.state_dict())
        assert torch.equal(learned(backbone, images), other(backbone, images))
    assert not torch.equal(before, learned(backbone, images))


@pytest.mark.parametrize("fused", [False, True])
def test_kept_class_embeddings_follow_each_optimiser_step(loaded, fused):
    backbone, images = loaded("tiny_clip"), torch.randn(5, 128)
    learned = ContextClassifier(backbone, NAMES, OWNERS, length=4)
    optimiser = torch.optim.AdamW(learned.parameters(), lr=0.1, fused=fused)
    for _ in range(2):
        with torch.no_grad():
            before = learned(backbone, images)
        learned(backbone, images).square().sum().backward()
        optimiser.step()
        with torch.no_grad():
            assert not torch.equal(learned(backbone, images), before)


def test_where_a_context_has_no_place_it_is_refused(loaded):
    # This tokenizer's vocabulary is of a few hundred pieces across words; the published one has the words.
    with pytest.raises(UnpromptableError, match=r"one token each.*clip_adapter"):
        ContextClassifier(loaded("siglip2"), NAMES, OWNERS)
    with pytest.raises(UnpromptableError, match="'an electroencephalogram of': a word of it is more than one token"):
        ContextClassifier(loaded("tiny_clip"), NAMES, OWNERS, words="an electroencephalogram of")
    with pytest.raises(UnpromptableError, match=r"exceed the text tower's 64.*Lower finetune\.context_length"):
        ContextClassifier(loaded("tiny_clip"), NAMES, OWNERS, length=62)
    assert issubclass(UnpromptableError, UserError)  # one line, no traceback


class Text(torch.nn.Module):
    """Two classes, as a text classifier has them."""

    def __init__(self, classes):
        super().__init__()
        self.classes = classes

    def forward(self, scale, embeddings):
        return text_logits(embeddings, self.classes, scale)


def test_the_adapter_is_the_published_formula():
    torch.manual_seed(0)
    classes, images, scale = functional.normalize(torch.randn(2, 12), dim=-1), torch.randn(5, 12), torch.tensor(7.0)
    adapted = AdaptedClassifier(Text(classes), 12, reduction=4, ratio=0.2)
    assert {name: tuple(p.shape) for name, p in adapted.named_parameters()} == {
        "adapter.0.weight": (3, 12),
        "adapter.2.weight": (12, 3),
    }
    down, up = (p.detach().double().numpy() for p in adapted.parameters())
    f = images.double().numpy()
    mixed = 0.2 * np.maximum(np.maximum(f @ down.T, 0) @ up.T, 0) + 0.8 * f
    expected = 7.0 * (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)) @ classes.double().numpy().T
    np.testing.assert_allclose(adapted(scale, images).detach().numpy(), expected, rtol=1e-5, atol=1e-5)
    # Directions alone count, so that it makes no difference whether f is normalised.
    torch.testing.assert_close(adapted(scale, functional.normalize(images, dim=-1)), adapted(scale, images))
    adapted.ratio = 0.0
    torch.testing.assert_close(adapted(scale, images), text_logits(images, classes, scale))


def problem(classes=3, rows=90, width=10, noise=1.0):
    """Return embeddings, labels that no linear classifier separates, and text embeddings."""
    rng = torch.Generator().manual_seed(classes)
    text = functional.normalize(torch.randn(classes, width, generator=rng, dtype=torch.float64), dim=-1)
    targets = torch.arange(rows) % classes
    x = text[targets] + noise * torch.randn(rows, width, generator=rng, dtype=torch.float64)
    return x, targets, text


def cross_entropy(x, y, w, alpha, text):
    """The objective of LP++ (equation 3), anew."""
    f = functional.normalize(x, dim=-1)
    logits = torch.stack([f @ (w[k] + alpha[k] * text[k]) for k in range(len(text))], 1)
    return (logits.logsumexp(1) - logits[torch.arange(len(y)), y]).mean()


def test_the_text_informed_probe_starts_as_published():
    x, y, text = problem()
    f = functional.normalize(x, dim=-1)
    first = next(iterates(x, y, text, iterations=10))
    for k in range(3):  # 30 examples a class count as 16
        torch.testing.assert_close(first.weight[k], 16 * f[y == k].mean(0))
    agreement = torch.stack([(f[y == k] @ text[k]).mean() for k in range(3)])
    torch.testing.assert_close(first.multipliers, 250 * agreement.mean().expand(3))
    few = torch.cat([(y == k).nonzero()[:4, 0] for k in range(3)])
    weight, _, shots = start(f[few], y[few], text)
    assert shots == 4
    torch.testing.assert_close(weight, torch.stack([f[few][y[few] == k].sum(0) for k in range(3)]))
    # Without prototypes, and with the temperature as the multiplier of each class, the logits are zero-shot's.
    alone = BlendedClassifier(torch.zeros(3, 10), torch.full((3,), 18.6), text)
    torch.testing.assert_close(alone(None, x), text_logits(x, text.float(), torch.tensor(18.6)))


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_no_cycle_raises_the_objective_and_it_ends_where_the_gradient_is_zero(classes):
    x, y, text = problem(classes, rows=30 * classes)
    found = list(iterates(x, y, text, iterations=3000))
    values = np.array([blend.objective for blend in found])
    assert (np.diff(values) <= 1e-12).all()
    assert [blend.iteration for blend in found[:3]] == [0, 10, 20]
    last = found[-1]
    w, alpha = last.weight.clone().requires_grad_(), last.multipliers.clone().requires_grad_()
    loss = cross_entropy(x, y, w, alpha, text)
    assert float(loss.detach()) == pytest.approx(last.objective, abs=1e-12)
    left = [float(gradient.abs().max()) for gradient in torch.autograd.grad(loss, [w, alpha])]
    assert max(left) == pytest.approx(last.gradient, abs=1e-10)
    assert last.gradient < 1e-4 < found[1].gradient
    best = torch.optim.LBFGS([w, alpha], max_iter=1000, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure():
        best.zero_grad()
        value = cross_entropy(x, y, w, alpha, text)
        value.backward()
        return value

    best.step(closure)
    assert last.objective == pytest.approx(float(closure()), abs=1e-4)


def test_steps_are_as_long_as_the_derived_bounds_allow():
    x, y, text = problem()
    f = functional.normalize(x, dim=-1)
    found = list(iterates(x, y, text, iterations=1))
    first, after = found
    w, alpha = first.weight.clone().requires_grad_(), first.multipliers.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(x, y, w, alpha, text), w)
    length = 2 * len(x) / float(torch.linalg.svdvals(f)[0]) ** 2
    torch.testing.assert_close(after.weight, first.weight - length * gradient)
    (gradient,) = torch.autograd.grad(cross_entropy(x, y, after.weight, alpha, text), alpha)
    length = 2 * len(x) / float((f @ text.T).square().sum(0).max())
    torch.testing.assert_close(after.multipliers, first.multipliers - length * gradient)


def test_the_medical_form_takes_steps_by_the_number_of_shots_with_momentum():
    x, y, text = problem(rows=15)
    steps = [list(iterates(x, y, text, iterations=n, form="medical")) for n in (1, 2)]
    first = steps[0][0]
    w = first.weight.clone().requires_grad_()
    sgd = torch.optim.SGD([w], lr=float(np.log(5 + 1)), momentum=0.9)
    for seen in steps:
        sgd.zero_grad()
        cross_entropy(x, y, w, first.multipliers, text).backward()
        sgd.step()
        torch.testing.assert_close(seen[-1].weight, w.detach())


def test_a_class_without_an_example_starts_from_its_text_alone():
    x, y, text = problem()
    kept = y != 2
    first = next(iterates(x[kept], y[kept], text, iterations=1))
    assert torch.equal(first.weight[2], torch.zeros(10, dtype=torch.float64))
    assert first.multipliers.isfinite().all()


def test_the_first_of_equally_good_iterates_is_chosen():
    x, y, text = problem()
    blend, score = choose(iterates(x, y, text, iterations=40), lambda blend: float(blend.iteration in (20, 30)))
    assert (blend.iteration, score) == (20, 1.0)


def test_what_a_classifier_learned_is_put_back(tmp_path, loaded):
    backbone, images = loaded("tiny_clip"), torch.randn(5, 128)
    pairs: list[list[torch.nn.Module]] = [
        [ContextClassifier(backbone, NAMES, OWNERS, length=4) for _ in range(2)],
        [BlendedClassifier(*(torch.randn(size) for size in ((2, 128), (2,), (2, 128)))) for _ in range(2)],
    ]
    for one, other in pairs:
        assert not torch.equal(one(backbone, images), other(backbone, images))
        save_classifier(one, tmp_path)
        load_classifier(other, tmp_path)
        assert torch.equal(one(backbone, images), other(backbone, images))
