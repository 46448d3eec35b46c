"""SIGKILL at random moments of a grid, and two launchers at once: nothing twice, nothing lost, the same results."""

from pathlib import Path

import pytest
from bench.grid_kills import CELLS, kills, reference, two


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory):
    return reference(tmp_path_factory.mktemp("undisturbed"))


def test_a_grid_that_is_killed_again_and_again_ends_as_an_undisturbed_one(tmp_path: Path, undisturbed):
    results, span = undisturbed
    assert len(kills(tmp_path, 5, seed=2, undisturbed=results, span=span)) == 5


def test_two_launchers_at_once_share_the_cells(tmp_path: Path, undisturbed):
    results, _ = undisturbed
    first, second = two(tmp_path, results)
    assert len(first) + len(second) == CELLS


def test_a_launcher_does_what_another_that_was_killed_has_left(tmp_path: Path, undisturbed):
    results, span = undisturbed
    assert two(tmp_path, results, kill_after=0.6 * span)
