"""Decorators that add a user's own methods and tasks to the registries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ht_bench import registry

C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Callable[..., Any])


def register_method(name: str) -> Callable[[C], C]:
    """Register a Method subclass under `name`, which becomes its `name` too.

    The class is made a dataclass if it is not one, so that its annotated fields are its
    hyperparameters. Raises UsageError when the name is taken.
    """
    from dataclasses import dataclass

    def keep(cls: C) -> C:
        if "__dataclass_fields__" not in vars(cls):
            dataclass(eq=False)(cls)
        cls.name = name  # type: ignore[attr-defined]
        return registry.methods.register(name)(cls)

    return keep


def register_task(name: str) -> Callable[[F], F]:
    """Register a function that returns a Task, or the path of its TOML file, under `name`."""
    return registry.tasks.register(name)
