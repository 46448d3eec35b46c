"""Exposure of a model to a domain."""

import pytest

from vlmbench.config.exposure import exposure


@pytest.mark.parametrize(
    ("role", "modalities", "declared", "expected"),
    [
        ("generalist", [], "auto", "ood"),
        ("generalist", ["radiograph"], "id", "ood"),
        ("specialist", ["radiograph", "fundus"], "auto", "id"),
        ("specialist", ["fundus"], "auto", "ood"),
        ("specialist", [], "auto", "unknown"),
        ("specialist", ["fundus"], "id", "id"),
        ("specialist", ["radiograph"], "unknown", "unknown"),
        ("generalist", ["undisclosed"], "auto", "unknown"),
        ("generalist", ["undisclosed"], "id", "id"),
    ],
)
def test_exposure(role, modalities, declared, expected):
    assert exposure(role, modalities, "radiograph", declared) == expected


def test_a_domain_that_does_not_name_its_modality_is_not_called_unseen():
    assert exposure("specialist", ["radiograph"], "unknown") == "unknown"
    assert exposure("specialist", ["radiograph"], "unknown", "ood") == "ood"
    assert exposure("generalist", [], "unknown") == "ood"
