"""A cell that is asked to stop, or is killed, goes on where it was and ends as an undisturbed one."""

import pytest

from vlmbench.domains.datamodule import EpochSampler, UnseenBatches


@pytest.mark.parametrize("done", [0, 1, 3, 4])
def test_the_batches_of_a_resumed_epoch_are_the_rest_of_it_and_the_next_epoch_is_whole(done):
    whole, rest = (UnseenBatches(EpochSampler(range(10), seed=3), 3, start) for start in ((2, 0), (2, done)))
    assert len(rest) == len(whole) == 4
    assert list(rest) == list(whole)[done:]
    for batches in (whole, rest):
        batches.order.set_epoch(3)
    assert list(rest) == list(whole)
