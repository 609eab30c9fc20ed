"""Which part of an algorithm is asking: stable-baselines3 tells its policies and targets nothing.

A policy cannot see from a call whether a rollout starts or an evaluation does, nor a target
network whether the algorithm's own update writes to it or its user. The calling frame can.
"""

from __future__ import annotations

import sys
from types import FrameType

from stable_baselines3.common.base_class import BaseAlgorithm


def calling_algorithm(*functions: str, through: str = "") -> BaseAlgorithm | None:
    """Return the algorithm one of whose `functions` called the function that asks, if one did.

    through: a function name that may lie between, such as "predict", which algorithms wrap.
    """
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and through and frame.f_code.co_name == through:
        frame = frame.f_back
    if frame is None or frame.f_code.co_name not in functions:
        return None
    owner = frame.f_locals.get("self")
    return owner if isinstance(owner, BaseAlgorithm) else None
