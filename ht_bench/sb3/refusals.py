"""Mistyped keywords and dict observations, refused in a sentence."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.torch_layers import FlattenExtractor

from ht_bench.errors import UsageError

KEYWORDS = ("plasticity", "plasticity_kwargs", "tortoise_target", "evaluate_as", "act_as", "fast")
NEAR = 0.75
"""How alike a word must be to one of KEYWORDS; the stock policy answers for others."""


@contextmanager
def keywords_read() -> Iterator[None]:
    """Say in a sentence which of `policy_kwargs` is near one of ours and known to no one."""
    try:
        yield
    except TypeError as error:
        found = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        near = difflib.get_close_matches(found[1], KEYWORDS, 1, NEAR) if found else []
        if found is None or not near:
            raise
        raise UsageError(
            f"policy_kwargs: no policy takes '{found[1]}'. Did you mean '{near[0]}'?"
        ) from error


def check_observations(policy: Any) -> None:
    """Raise UsageError for dict observations with the extractor of flat ones."""
    flat = policy.features_extractor_class is FlattenExtractor
    if flat and isinstance(policy.observation_space, spaces.Dict):
        raise UsageError(
            "An …MlpPolicy takes no dict observations; use 'HareTortoiseMultiInputPolicy' or "
            "'PlasticMultiInputPolicy' in its place."
        )
