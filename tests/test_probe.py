"""The linear probe against scikit-learn on the same features, and LoRA's counts against PEFT's own."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional

from vlmbench.backbones.loaders import load
from vlmbench.tuning.linear_probe import BLOCK, search, solve
from vlmbench.tuning.parameters import count_by_part, format_table, train_only
from vlmbench.tuning.tuners import Lora
from vlmbench.weights.source import ASSETS


def problem(seed, classes, rows=300, width=40):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, width)) * rng.uniform(0.2, 3, width)
    logits = x @ rng.normal(size=(width, classes)) * 0.5 + rng.normal(size=(rows, classes))
    return (x - x.mean(0)) / x.std(0), logits.argmax(1)


def objective(x, y, weight, bias, strength):
    """scikit-learn's, divided by C and the number of rows; one logit where there are two classes."""
    logits = x @ weight.T + bias
    if weight.shape[0] == 1:
        margin = np.where(y == 1, logits[:, 0], -logits[:, 0])
        losses = np.logaddexp(0, -margin)
    else:
        losses = np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(y)), y]
    return losses.mean() + 0.5 * (weight**2).sum() / (strength * len(y))


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_the_probe_reaches_scikit_learns_optimum(classes):
    x, y = problem(classes, classes)
    strengths = [1e-3, 1e-1, 1.0, 100.0]
    for strength, ours in zip(
        strengths, solve(torch.from_numpy(x), torch.from_numpy(y), classes, strengths), strict=True
    ):
        peer = LogisticRegression(C=strength, tol=1e-10, max_iter=20_000).fit(x, y)
        best = objective(x, y, peer.coef_, peer.intercept_, strength)
        assert ours.objective == pytest.approx(best, rel=1e-5)
        assert ours.converged
        assert ours.gradient <= 1e-6
        shares = torch.softmax(torch.from_numpy(x) @ ours.weight.T + ours.bias, -1).numpy()
        np.testing.assert_allclose(shares, peer.predict_proba(x), atol=2e-3)


def test_several_labels_are_as_many_separate_problems():
    x, first = problem(1, 2)
    _, second = problem(2, 2)
    targets = np.stack([first, second], 1)
    (ours,) = solve(torch.from_numpy(x), torch.from_numpy(targets), 2, [0.5])
    for column in range(2):
        peer = LogisticRegression(C=0.5, tol=1e-10, max_iter=20_000).fit(x, targets[:, column])
        np.testing.assert_allclose(ours.weight[column].numpy(), peer.coef_[0], atol=1e-3)
        np.testing.assert_allclose(ours.bias[column].numpy(), peer.intercept_[0], atol=1e-3)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_probe_does_not_depend_on_what_is_solved_beside_it(classes, monkeypatch):
    x, y = (torch.from_numpy(array) for array in problem(5, classes))
    strengths = [10.0**k for k in range(-4, 4)]
    together = solve(x, y, classes, strengths, tolerance=1e-9)
    again = solve(x, y, classes, strengths, tolerance=1e-9)
    monkeypatch.setattr("vlmbench.tuning.linear_probe.TOGETHER", 3 * classes * x.shape[1])  # three at a time
    monkeypatch.setitem(BLOCK, "cpu", 1)  # in blocks of 64 rows
    apart = solve(x, y, classes, strengths, tolerance=1e-9)
    for one, same, alone in zip(together, again, apart, strict=True):
        assert one.converged
        assert torch.equal(one.weight, same.weight)
        assert (one.weight - alone.weight).abs().max() < 1e-4
        assert one.objective == pytest.approx(alone.objective, rel=1e-9)


def gradient_of(x, y, classes, solution):
    """Largest entry of the gradient by automatic differentiation, for two rows of one logit as for many."""
    one = classes == 2
    weight, bias = (part[1:] - part[:1] if one else part for part in (solution.weight, solution.bias))
    weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    logits = x.double() @ weight.T + bias
    loss = functional.cross_entropy(torch.cat([torch.zeros_like(logits), logits], 1) if one else logits, y)
    loss = loss + weight.square().sum() / (2 * solution.strength * len(x))
    return max(float(part.abs().max()) for part in torch.autograd.grad(loss, [weight, bias]))


def hard(kind):
    x, y = (torch.from_numpy(array) for array in problem(6, 3, rows=120, width=20))
    if kind == "separable":
        x = x + 10 * functional.one_hot(y, 20)
    elif kind == "constant features":
        x[:, :5] = 3.0
        x[:, 5] = 0.0
    elif kind == "fewer rows than features":
        x, y = x[:12].repeat(1, 5) + 0.1 * torch.from_numpy(problem(7, 2, rows=12, width=100)[0]), y[:12]
    elif kind == "twice the same":
        x = x[:, :4].repeat(1, 5)
    elif kind == "large and small scales":
        x = x * torch.logspace(-4, 2, 20, dtype=torch.float64) + 5
    elif kind == "float32":
        x = x.float()
    return x, y


@pytest.mark.parametrize(
    "kind",
    [
        "separable",
        "constant features",
        "fewer rows than features",
        "twice the same",
        "large and small scales",
        "float32",
    ],
)
@pytest.mark.parametrize("classes", [2, 3])
def test_hard_problems_are_solved(kind, classes):
    x, y = hard(kind)
    y = y.clamp(max=classes - 1)
    for solution in solve(x, y, classes, [1e-5, 1e-2, 1.0, 1e4]):
        assert solution.converged
        assert gradient_of(x, y, classes, solution) <= 1.01e-6
    if kind == "constant features":
        assert solution.weight[:, :6].abs().max() < 1e-9


def test_a_class_without_rows_gets_no_share_and_leaves_the_others_alone():
    x, y = (torch.from_numpy(array) for array in problem(8, 3))
    (whole,), (lacking,) = solve(x, y, 3, [1.0]), solve(x, y, 4, [1.0])
    assert lacking.converged
    shares = torch.softmax(x @ lacking.weight.T + lacking.bias, 1)
    assert shares[:, 3].max() < 1e-4
    torch.testing.assert_close(shares[:, :3], torch.softmax(x @ whole.weight.T + whole.bias, 1), atol=1e-4, rtol=0)
    (one,) = solve(x, torch.zeros(len(x), 2), 2, [1.0])  # two labels that nobody has
    assert one.converged
    assert (x @ one.weight.T + one.bias).sigmoid().max() < 1e-5


def test_what_is_not_solved_says_so():
    x, y = (torch.from_numpy(array) for array in problem(5, 3))
    strong, weak = solve(x, y, 3, [1e-6, 1e3], max_iter=5)
    assert strong.converged
    assert not weak.converged
    assert weak.gradient > 1e-6
    assert weak.iterations == 10  # five in either precision


def test_of_equally_good_strengths_the_strongest_penalty_wins():
    x, y = (torch.from_numpy(array) for array in problem(5, 2))
    best, scored = search(x, y, 2, [1.0, 0.1, 1.0], lambda _: 0.5)
    assert best.strength == 0.1
    assert [(solution.strength, score) for solution, score in scored] == [(0.1, 0.5), (1.0, 0.5)]
    best, _ = search(x, y, 2, [1.0, 0.1], lambda solution: solution.strength)
    assert best.strength == 1.0
    with pytest.raises(ValueError, match="strengths"):
        search(x, y, 2, [], lambda _: 0.5)


@pytest.mark.parametrize(("rank", "scope"), [(4, "vision"), (8, "text"), (16, "vision+text")])
def test_trainable_counts_of_a_dual_encoder_are_pefts_own(rank, scope):
    backbone = load("hf_clip", str(ASSETS / "tiny_clip"), dtype=torch.float32)
    untouched = sum(p.numel() for p in backbone.model.parameters())
    Lora(scope, rank, 16.0, 0.0).apply(backbone)
    table = count_by_part(backbone.model, backbone.part_prefixes)
    trainable, total = backbone.model.get_nb_trainable_parameters()
    assert sum(row["trainable"] for row in table.values()) == trainable > 0
    assert sum(row["total"] for row in table.values()) == total == untouched + trainable
    # rank x (in + out) for each Linear: 4 projections of 128 x 128, one 128 -> m, one m -> 128.
    per_layer = {"vision": rank * (4 * 256 + 2 * (128 + 512)), "text": rank * (4 * 256 + 2 * (128 + 256))}
    layers = {"vision": 4, "text": 2}
    assert trainable == sum(per_layer[part] * layers[part] for part in scope.split("+"))
    assert f"{trainable:,}" in format_table(table)


@pytest.mark.parametrize("connector", ["full", "lora"])
@pytest.mark.parametrize("scope", ["V", "L", "ML", "VML"])
def test_trainable_counts_of_a_generative_model_are_pefts_own(scope, connector):
    backbone = load("hf_vlm", str(ASSETS / "tiny_llava"), dtype=torch.float32)
    Lora(scope, 8, 16.0, 0.0, connector).apply(backbone)
    table = count_by_part(backbone.model, backbone.part_prefixes)
    trainable, _ = backbone.model.get_nb_trainable_parameters()
    assert sum(row["trainable"] for row in table.values()) == trainable
    parts = {part for part, row in table.items() if row["trainable"]}
    assert parts == {{"V": "vision", "M": "connector", "L": "language"}[letter] for letter in scope}


def test_training_what_is_not_there_is_an_error():
    with pytest.raises(ValueError, match="no_such"):
        train_only(torch.nn.Linear(2, 2), ["weight", "no_such"])


@pytest.mark.parametrize("finetune", ["linear_probe", "coop"])
def test_nothing_is_selected_by_an_auroc_that_is_undefined(train, finetune):
    # Each image of this world's validation split shows a finding.
    world = ["domain=phantom_radiograph", "domain.patients=10", "domain.world_seed=1"]
    ran = train(*world, f"finetune={finetune}", small=False)
    assert ran.record["selection"]["metric"] == "val/loss"
    assert ran.record["selection"]["value"] > 0
    assert "val/auroc is undefined: all 4 examples of the validation split have the same label" in ran.err
    trial = train(*world, f"finetune={finetune}", "task.evaluate_on=val", small=False, output=ran.output / "trial")
    assert trial.record["status"] == "failed"
    assert "set task.monitor=val/loss" in trial.record["error"]["message"]
