"""Keys of draws: every part counts, nothing else does, and they are the same on every machine."""

from typing import get_args

import numpy as np
import pytest

from ht_bench.streams.randomness import Purpose, generator, key, torch_seed

PARTS = [
    *((task, 1, "split", 0, 0) for task in "ab"),
    *(("a", seed, "split", 0, 0) for seed in (2, -1, 1 + 2**64, 11)),
    ("a", 1, "arrival", 0, 0),
    *(("a", 1, "split", phase, epoch) for phase, epoch in ((1, 0), (0, 1), (11, 0), (1, 1))),
]


def test_every_part_of_a_key_counts() -> None:
    assert len({key(*parts) for parts in PARTS}) == len(PARTS)
    assert len({torch_seed(*parts) for parts in PARTS}) == len(PARTS)
    assert len({key("a", 1, purpose) for purpose in get_args(Purpose)}) == len(get_args(Purpose))


@pytest.mark.parametrize("parts", PARTS)
def test_keys_fit_where_they_go(parts: tuple[str, int, Purpose, int, int]) -> None:
    assert 0 <= key(*parts) < 2**128
    assert 0 <= torch_seed(*parts) < 2**63


def test_equal_keys_draw_alike_and_others_do_not() -> None:
    first, second = (generator("a", 1, "split").permutation(100) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert (generator("a", 1, "split", 0, 1).permutation(100) != first).any()


def test_draws_do_not_touch_numpys_global_state() -> None:
    saved = np.random.get_state()
    try:
        np.random.seed(987654321)
        before = np.random.get_state()
        generator("a", 1, "split").permutation(100)
        np.testing.assert_equal(np.random.get_state(), before)
    finally:
        np.random.set_state(saved)


def test_draws_are_the_same_on_every_machine() -> None:
    parts = ("warm-start-digits-v1", 100, "batch order", 1, 2)
    assert key(*parts) == 214134384633877088851059897236638261277
    assert torch_seed(*parts) == 214134384633877088851059897236638261277 % 2**63
    assert generator(*parts).permutation(8).tolist() == [2, 1, 6, 5, 0, 3, 7, 4]
