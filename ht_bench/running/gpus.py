"""Which GPUs this process may use; each worker process is given one of them."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch

VISIBLE = "CUDA_VISIBLE_DEVICES"


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the GPUs of this machine that CUDA shows, as `CUDA_VISIBLE_DEVICES` names them."""
    count = torch.cuda.device_count()
    names = [name.strip() for name in environment.get(VISIBLE, "").split(",") if name.strip()]
    return (names or [str(index) for index in range(count)])[:count]
