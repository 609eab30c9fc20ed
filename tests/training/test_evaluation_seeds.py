"""The episodes that agents are evaluated on."""

from ht_bench.methods.resolve import resolve
from ht_bench.streams.reinforcement import parse_reinforcement
from ht_bench.streams.stream import Split
from ht_bench.training.reinforcement import ReinforcementRun

TASK = {
    "name": "tiny-v1",
    "family": "swap",
    "seeds": "100-101",
    "environment": {"id": "CartPole-v1"},
    "agent": {"algorithm": "dqn"},
    "evaluation": {"episodes": 2, "points": 2},
    "reference": {"random": 22.0},
    "phases": [{"repeat": 2, "steps": 160, "actions": "permuted"}],
}


def test_evaluation_episodes_are_keyed_by_task_phase_and_split_alone() -> None:
    """Released curves rest on these very seeds."""

    def seeds(seed: int, method: str, split: Split, index: int) -> tuple[int, ...]:
        run = ReinforcementRun(
            parse_reinforcement(TASK, "tiny"), resolve(method, agent=True), seed, split
        )
        with run.episodes(index) as episodes:
            return episodes.seeds

    first = seeds(100, "none", "test", 0)
    assert first == seeds(101, "ema", "test", 0) == (678153837, 1070952986)
    others = [seeds(100, "none", "test", 1), seeds(100, "none", "validation", 0)]
    assert len({*first, *others[0], *others[1]}) == 6
