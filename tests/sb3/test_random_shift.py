"""Shifted replay: what comes out is a shift of what is stored, and nothing else changes."""

from __future__ import annotations

import itertools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch import Tensor
from torch.nn import functional as F

from ht_bench.errors import UsageError
from ht_bench.sb3.random_shift import RandomShiftNStepReplayBuffer, RandomShiftReplayBuffer, shift

from .conftest import Sights

IMAGES = spaces.Box(0, 255, (3, 12, 10), dtype=np.uint8)
ACTIONS = spaces.Discrete(4)
SHIFTED = {RandomShiftReplayBuffer: ReplayBuffer, RandomShiftNStepReplayBuffer: NStepReplayBuffer}


def filled(cls: Any, count: int = 20, seed: int = 0, **kwargs: Any) -> Any:
    """Return a buffer of `count` transitions in one endless episode, reward k at the k-th."""
    torch.manual_seed(seed)
    buffer = cls(50, IMAGES, ACTIONS, device="cpu", **kwargs)
    draw = np.random.default_rng(0)
    for step in range(count):
        pair = draw.integers(0, 256, (2, 1, *IMAGES.shape), dtype=np.uint8)
        action, reward = np.array([[step % 4]]), np.array([float(step)])
        buffer.add(pair[0], pair[1], action, reward, np.array([False]), [{}])
    return buffer


def offsets_of(image: Tensor, stored: Any, pad: int) -> list[tuple[int, int]]:
    """Search for all crops of the padded stored image that equal `image`."""
    padded = np.pad(stored, ((0, 0), (pad, pad), (pad, pad)), mode="edge")
    height, width = image.shape[1:]
    return [
        (row, column)
        for row, column in itertools.product(range(2 * pad + 1), repeat=2)
        if (padded[:, row : row + height, column : column + width] == image.numpy()).all()
    ]


def samples(buffer: ReplayBuffer, count: int = 64, seed: int = 1) -> ReplayBufferSamples:
    np.random.seed(seed)
    return buffer.sample(count)


def assert_same(left: ReplayBufferSamples, right: ReplayBufferSamples, but: str = "~") -> None:
    for name, mine, theirs in zip(left._fields, left, right, strict=True):
        if but in name:
            continue
        assert (mine is None) == (theirs is None)
        if mine is not None:
            assert mine.dtype == theirs.dtype and torch.equal(mine, theirs), name


# ---- the shift ----


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_shift_is_a_crop_of_the_replicated_padding(dtype: torch.dtype) -> None:
    pad, (height, width) = 2, (5, 7)
    every = torch.tensor(list(itertools.product(range(2 * pad + 1), repeat=2)))
    images = torch.randint(256, (len(every), 3, height, width)).to(dtype)
    padded = F.pad(images.double(), (pad,) * 4, mode="replicate")
    found = shift(images, every, pad)
    assert found.dtype == dtype and found.is_contiguous()
    for index, (row, column) in enumerate(every.tolist()):
        crop = padded[index, :, row : row + height, column : column + width]
        assert torch.equal(found[index].double(), crop), (row, column)
    assert torch.equal(shift(images, torch.full_like(every, pad), pad), images)


def test_shift_may_be_larger_than_the_image() -> None:
    image = torch.arange(4).view(1, 1, 2, 2)
    assert shift(image, torch.tensor([[0, 12]]), 6).flatten().tolist() == [1, 1, 1, 1]


# ---- sampling ----


@pytest.mark.parametrize("cls", SHIFTED)
def test_samples_are_shifts_of_the_stored_images(cls: Any) -> None:
    buffer = filled(cls, pad=2)
    stored = buffer.observations.copy(), buffer.next_observations.copy()
    indices = np.arange(400) % 20
    found = buffer._get_samples(indices)
    ahead = np.minimum(indices + getattr(buffer, "n_steps", 1) - 1, 19)
    offsets = []
    for row, (index, last) in enumerate(zip(indices, ahead, strict=True)):
        now = offsets_of(found.observations[row], stored[0][index, 0], 2)
        later = offsets_of(found.next_observations[row], stored[1][last, 0], 2)
        assert len(now) == len(later) == 1, row
        offsets.append((now[0], later[0]))
    every = set(itertools.product(range(5), repeat=2))
    assert {now for now, _ in offsets} == {later for _, later in offsets} == every
    together = sum(now == later for now, later in offsets)
    assert 4 <= together <= 32  # of 400, one in 25 by chance: 16 ± 4
    assert np.array_equal(buffer.observations, stored[0])
    assert np.array_equal(buffer.next_observations, stored[1])


@pytest.mark.parametrize(("cls", "stock"), SHIFTED.items())
def test_only_images_change_and_no_stream_of_the_agent_moves(cls: Any, stock: Any) -> None:
    unshifted, mine, theirs = filled(cls, pad=0), filled(cls), filled(stock)
    for seed in range(3):
        assert_same(samples(unshifted, seed=seed), samples(theirs, seed=seed))
    before = torch.get_rng_state()
    expected, after = samples(theirs), np.random.get_state()[1].tolist()
    shifted = samples(mine)
    assert mine.pad == 4
    assert_same(shifted, expected, but="observations")
    assert not torch.equal(shifted.observations, expected.observations)
    assert np.random.get_state()[1].tolist() == after
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(0)
    cls(50, IMAGES, ACTIONS, device="cpu")
    assert torch.equal(torch.get_rng_state(), before)


def test_memory_saving_buffer_shifts_too() -> None:
    saving = {"optimize_memory_usage": True, "handle_timeout_termination": False}
    buffer = filled(RandomShiftReplayBuffer, pad=2, **saving)
    rows = buffer._get_samples(np.array([3, 4]))
    for row, index in enumerate((3, 4)):
        for images, at in ((rows.observations, index), (rows.next_observations, index + 1)):
            assert len(offsets_of(images[row], buffer.observations[at, 0], 2)) == 1


def test_shifts_follow_the_seed() -> None:
    first, same, other = (filled(RandomShiftReplayBuffer, seed=seed) for seed in (5, 5, 6))
    drawn = samples(first)
    assert_same(drawn, samples(same))
    assert not torch.equal(drawn.observations, samples(other).observations)
    assert not torch.equal(drawn.observations, samples(first).observations)


def test_reset_starts_the_shifts_anew() -> None:
    fresh, used = filled(RandomShiftReplayBuffer, seed=7), filled(RandomShiftReplayBuffer, seed=8)
    samples(used)
    contents = used.pos
    torch.manual_seed(7)  # as `restart` does before it empties the buffer
    used.reset()
    assert used.size() == 0
    used.pos = contents
    assert_same(samples(used), samples(fresh))


def test_pickled_buffer_goes_on_with_its_shifts() -> None:
    buffer = filled(RandomShiftNStepReplayBuffer)
    samples(buffer)
    copied = pickle.loads(pickle.dumps(buffer))
    assert_same(samples(copied), samples(buffer))


# ---- n-step returns ----


@pytest.mark.parametrize("pad", [0, 3])
def test_n_step_returns_by_hand(pad: int) -> None:
    """Rewards 1, 2, 3, …; an episode ends at step 4, another is cut short at step 7."""
    buffer = RandomShiftNStepReplayBuffer(
        20, IMAGES, ACTIONS, device="cpu", pad=pad, n_steps=3, gamma=0.5
    )
    for step in range(10):
        image = np.full((1, *IMAGES.shape), step, dtype=np.uint8)  # a shift leaves it as it is
        done, info = step in (4, 7), {"TimeLimit.truncated": step == 7}
        reward = np.array([step + 1.0])
        buffer.add(image, image + 1, np.array([[0]]), reward, np.array([done]), [info])
    found = buffer._get_samples(np.array([0, 2, 3, 4, 6, 8]))
    assert found.rewards.flatten().tolist() == [
        1 + 2 / 2 + 3 / 4,
        3 + 4 / 2 + 5 / 4,
        4 + 5 / 2,  # the episode's end
        5,
        7 + 8 / 2,  # its time ran out
        9 + 10 / 2,  # the newest transition: what follows is not known yet
    ]
    assert found.discounts.flatten().tolist() == [1 / 8, 1 / 8, 1 / 4, 1 / 2, 1 / 4, 1 / 4]
    assert found.dones.flatten().tolist() == [0, 1, 1, 1, 0, 0]
    assert found.observations[:, 0, 0, 0].tolist() == [0, 2, 3, 4, 6, 8]
    later = found.next_observations.flatten(1).unique(dim=1).flatten().tolist()
    assert later == [3, 5, 5, 5, 8, 10]


# ---- in DQN ----


def agent(cls: Any = None, buffer: dict[str, Any] | None = None, **settings: Any) -> DQN:
    settings |= {"replay_buffer_class": cls, "replay_buffer_kwargs": buffer, "gamma": 0.9}
    settings |= {"learning_starts": 20, "buffer_size": 60, "batch_size": 8, "seed": 3}
    settings |= {"target_update_interval": 20, "device": "cpu"}
    settings |= {"policy_kwargs": {"features_extractor_kwargs": {"features_dim": 16}}}
    return DQN("CnnPolicy", Sights(images=True, continuous=False), **settings).learn(60)


def weights(model: DQN) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.policy.parameters()])


def test_agents_without_pad_are_the_stock_agents() -> None:
    one_step = weights(agent())
    assert torch.equal(weights(agent(RandomShiftReplayBuffer, {"pad": 0})), one_step)
    mine = agent(RandomShiftNStepReplayBuffer, {"pad": 0, "n_steps": 3, "gamma": 0.9})
    assert (mine.replay_buffer.n_steps, mine.n_steps) == (3, 1)
    stock = agent(n_steps=3)
    assert type(stock.replay_buffer) is NStepReplayBuffer
    assert stock.replay_buffer.gamma == 0.9
    assert torch.equal(weights(mine), weights(stock))
    assert not torch.equal(weights(mine), one_step)


def test_agent_with_shifts_repeats_itself_from_a_seed(tmp_path: Path) -> None:
    shifted = {"pad": 4, "gamma": 0.9}
    model = agent(RandomShiftNStepReplayBuffer, shifted)
    assert torch.equal(weights(model), weights(agent(RandomShiftNStepReplayBuffer, shifted)))
    assert not torch.equal(weights(model), weights(agent(NStepReplayBuffer, {"gamma": 0.9})))
    model.save_replay_buffer(tmp_path / "buffer.pkl")
    expected = samples(model.replay_buffer)
    model.load_replay_buffer(tmp_path / "buffer.pkl")
    assert_same(samples(model.replay_buffer), expected)
    model.save(tmp_path / "model.zip")
    loaded = DQN.load(tmp_path / "model.zip", env=model.get_env(), device="cpu")
    assert isinstance(loaded.replay_buffer, RandomShiftNStepReplayBuffer)
    assert (loaded.replay_buffer.pad, loaded.replay_buffer.size()) == (4, 0)


# ---- mistakes ----

IMAGES_NEEDED = "need uint8 images between 0 and 255"


@pytest.mark.parametrize("cls", SHIFTED)
@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        (spaces.Box(-1, 1, (4,), dtype=np.float32), IMAGES_NEEDED),
        (spaces.Box(0, 1, (3, 12, 12), dtype=np.float32), IMAGES_NEEDED),
        (spaces.Box(0, 127, (3, 12, 12), dtype=np.uint8), IMAGES_NEEDED),
        (spaces.Dict({"image": IMAGES}), IMAGES_NEEDED),
        (spaces.Discrete(3), IMAGES_NEEDED),
        (
            spaces.Box(0, 255, (12, 12, 3), dtype=np.uint8),
            r"shape \(12, 12, 3\); wrap .* VecTransposeImage",
        ),
    ],
    ids=["vector", "float", "bounds", "dict", "discrete", "channels-last"],
)
def test_other_observations_are_refused(cls: Any, space: Any, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        cls(50, space, ACTIONS, device="cpu")


def test_dqn_on_vectors_is_refused() -> None:
    with pytest.raises(UsageError, match="leave replay_buffer_class out"):
        DQN("MlpPolicy", "CartPole-v1", replay_buffer_class=RandomShiftReplayBuffer)


@pytest.mark.parametrize("pad", [-1, 1.5, True, "4", None])
def test_a_pad_that_is_no_number_of_pixels_is_refused(pad: Any) -> None:
    with pytest.raises(UsageError, match="give 0 pixels or more"):
        RandomShiftReplayBuffer(50, IMAGES, ACTIONS, device="cpu", pad=pad)
