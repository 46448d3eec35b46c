"""The linear probe against scikit-learn on the same features, and LoRA's counts against PEFT's own."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from vlmbench.backbones.loaders import load
from vlmbench.tuning.linear_probe import search, solve
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


@pytest.mark.parametrize("strength", [1e-3, 1e-1, 1.0, 100.0])
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_the_probe_reaches_scikit_learns_optimum(classes, strength):
    x, y = problem(classes, classes)
    peer = LogisticRegression(C=strength, tol=1e-10, max_iter=20_000).fit(x, y)
    best = objective(x, y, peer.coef_, peer.intercept_, strength)
    ours = solve(torch.from_numpy(x), torch.from_numpy(y), classes, strength)
    assert ours.objective == pytest.approx(best, rel=1e-4)
    assert ours.objective <= best * (1 + 1e-5)
    assert ours.gradient < 1e-5
    shares = torch.softmax(torch.from_numpy(x) @ ours.weight.T + ours.bias, -1).numpy()
    np.testing.assert_allclose(shares, peer.predict_proba(x), atol=2e-3)


def test_several_labels_are_as_many_separate_problems():
    x, first = problem(1, 2)
    _, second = problem(2, 2)
    targets = np.stack([first, second], 1)
    ours = solve(torch.from_numpy(x), torch.from_numpy(targets), 2, 0.5)
    for column in range(2):
        peer = LogisticRegression(C=0.5, tol=1e-10, max_iter=20_000).fit(x, targets[:, column])
        np.testing.assert_allclose(ours.weight[column].numpy(), peer.coef_[0], atol=1e-3)
        np.testing.assert_allclose(ours.bias[column].numpy(), peer.intercept_[0], atol=1e-3)


def test_a_warm_start_ends_where_a_cold_one_does():
    x, y = (torch.from_numpy(array) for array in problem(5, 3))
    seen = []

    def validate(solution):
        seen.append(solution)
        return solution.strength

    best, scores = search(x, y, 3, [1.0, 0.01, 0.1], validate)
    assert [solution.strength for solution in seen] == [0.01, 0.1, 1.0]
    assert best.strength == 1.0
    assert scores == {0.01: 0.01, 0.1: 0.1, 1.0: 1.0}
    cold = solve(x, y, 3, 1.0)
    torch.testing.assert_close(best.weight, cold.weight, atol=1e-4, rtol=1e-4)


def test_of_equally_good_strengths_the_strongest_penalty_wins():
    x, y = (torch.from_numpy(array) for array in problem(5, 2))
    best, _ = search(x, y, 2, [1.0, 0.1], lambda _: 0.5)
    assert best.strength == 0.1


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
