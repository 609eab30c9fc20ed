"""An environment and a wrapper: walk to the right end of a corridor."""

import gymnasium
import numpy as np


class Corridor(gymnasium.Env):
    """Each step right earns 1, an episode lasts ten steps or to the corridor's end."""

    observation_space = gymnasium.spaces.Box(-20, 20, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, length=8):
        self.length = length
        self.place = self.steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.steps = 0, 0
        return self._seen(), {}

    def step(self, action):
        self.place += 2 * int(action) - 1
        self.steps += 1
        ended = self.place >= self.length
        return self._seen(), float(action), ended, self.steps >= 10, {}

    def _seen(self):
        return np.array([self.place], np.float32)


class Doubled(gymnasium.RewardWrapper):
    """Rewards in training are doubled."""

    def __init__(self, env, factor=2.0, evaluation=False):
        super().__init__(env)
        self.factor = 1.0 if evaluation else factor

    def reward(self, reward):
        return self.factor * reward
