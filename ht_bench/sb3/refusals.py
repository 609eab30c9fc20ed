"""Misplaced and mistyped keywords and dict observations, refused in a sentence."""

from __future__ import annotations

import difflib
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.torch_layers import FlattenExtractor

from ht_bench.errors import UsageError
from ht_bench.methods.composed import BETWEEN
from ht_bench.methods.resolve import MethodSpec

KEYWORDS = ("plasticity", "plasticity_kwargs", "tortoise_target", "evaluate_as", "act_as", "fast")
NEAR = 0.75
"""How alike a word must be to one of KEYWORDS; the stock policy answers for others."""


@contextmanager
def keywords_read() -> Iterator[None]:
    """Say in a sentence which of `policy_kwargs` is the method's or near one of ours.

    A keyword that the stock policy takes is its own, and others that it does not it refuses itself.
    """
    try:
        yield
    except TypeError as error:
        found = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        word = found[1] if found else ""
        method = _method_beside(word, error)
        near = difflib.get_close_matches(word, KEYWORDS, 1, NEAR)
        if method is None and not near:
            raise
        then = f"Did you mean '{near[0]}'?" if near else ""
        if method is not None:
            then = f"It is of '{method}': put it into plasticity_kwargs=dict({word}=…)."
        raise UsageError(f"policy_kwargs: no policy takes '{word}'. {then}") from error


def _method_beside(word: str, error: TypeError) -> str | None:
    """Return the name of the method that has hyperparameter `word`, which the policy was given.

    The policy that was being made stands in the traceback; its optimizer's keywords are not its.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        made = getattr(frame.f_locals.get("self"), "__dict__", {})
        if word in made.get("_stock_arguments", ()):
            spec: MethodSpec = made["_plasticity"]
            own = {name.rpartition(BETWEEN)[2] for name in spec.hyperparameters}
            return spec.name if word in own else None
    return None


def check_observations(policy: Any) -> None:
    """Raise UsageError for dict observations with the extractor of flat ones."""
    flat = policy.features_extractor_class is FlattenExtractor
    if flat and isinstance(policy.observation_space, spaces.Dict):
        raise UsageError(
            "An …MlpPolicy takes no dict observations; use 'HareTortoiseMultiInputPolicy' or "
            "'PlasticMultiInputPolicy' in its place."
        )
