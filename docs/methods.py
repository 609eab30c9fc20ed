"""Write docs/methods.md from the code and the recipes: `python docs/methods.py` (half a minute).

Where a method works is asked of the code: it is attached, and a refusal is its own sentence. What
it costs is read from benchmarks/results/methods-*.json, `python -m benchmarks.methods`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import json
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

import ht_bench.sb3
from ht_bench.errors import UsageError
from ht_bench.methods.base import Method
from ht_bench.methods.loop import NEEDS
from ht_bench.methods.recipe import Recipe, get_recipe, recipe_names
from ht_bench.methods.resolve import find_class, resolve
from ht_bench.methods.space import Range
from ht_bench.streams.dataset import Dataset
from ht_bench.streams.task import Task, parse_task
from ht_bench.training.device import Compute
from ht_bench.training.supervised import SupervisedRun

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "methods.md"
NETWORKS: dict[str, dict[str, Any]] = {
    "MLP": {"name": "mlp", "hidden": [8, 6, 4]},
    "CNN": {"name": "cnn", "channels": [4], "hidden": [4]},
    "ResNet-18": {"name": "resnet18"},
    "ViT-Tiny": {"name": "vit"},
}
ALGORITHMS = {
    "PPO": "ppo",
    "A2C": "a2c",
    "DQN": "dqn",
    "QR-DQN": "qrdqn",
    "SAC": "sac",
    "TD3": "td3",
}
PLACES = (*NETWORKS, *ALGORITHMS)
INTRODUCTION = """\
# Methods

Every method with a recipe: its rule, where it is from, its hyperparameters, what it needs of a
training loop beyond gradients and weights, where it works, what it costs. This page is written from
the code and from `baselines/` by `python docs/methods.py`.

Where it works: `yes` means that it can be attached there with the settings of its recipe; where it
cannot, its own sentence stands under the method. Networks are those of the supervised loop (MLP and
CNN as stacks of seeds), agents those of stable-baselines3 with
`policy_kwargs=dict(plasticity="NAME")`. Cost: the time of a training step relative to `none`, in
turns on a stack of ten seeds of the digits perceptron (`python -m benchmarks.methods`), of `none`
against itself in brackets, which is noise; work at a boundary is not in it. Tuned: the tasks on
which a search is recorded, on the whole stream (w) and on its first share (f).

Tuning gives every method the same limit, on tuning seeds and the validation split:

```
ht-bench tune --task warm-start-digits-v1 --method all --write
ht-bench tune --task warm-start-digits-v1 --method all --regime first --share 0.1 --write
ht-bench run --task warm-start-digits-v1 --method redo,redo@first
```

A method tries at most 12 configurations on a task of data and 4 on one of environments
(`--trials`): its whole `[grid]`, a fixed random subset of a larger one, or what Optuna's TPE draws
from ranges, `[space]` in the recipe or `--space FILE` (`strength = { low = 1e-5, high = 1e-2, log =
true }`). Of `hare-tortoise` 20 were seen on four tasks, since its grid was drawn three times (its
recipe says why). What was tried is kept in `runs-tuning/tuning.db`, and the same command goes on
from there. `--regime first` sees only the first share of a stream's steps (k %-tuning, 2404.02113);
what it chose stands in `[first.TASK]`, and `NAME@first` runs it beside `NAME`.
"""

FROZEN = "It also rewrites layers that `requires_grad_(False)` has frozen."
NOTES = {"full-reset": FROZEN, "fire": FROZEN}
"""What the page says of a method beyond its docstring; a test holds them to the code."""


# ---- where it works ----


@functools.cache
def _images() -> Dataset:
    """A few random images of ten classes."""
    draw = np.random.default_rng(0)
    images = [draw.integers(0, 256, (n, 3, 16, 16), dtype=np.uint8) for n in (40, 20)]
    labels = [np.arange(n) % 10 for n in (40, 20)]
    middle, spread = (0.5,) * 3, (0.289,) * 3
    return Dataset(
        "images", images[0], labels[0], images[1], labels[1], 10, middle, spread, 255, "0" * 64
    )


def on_network(method: str, table: Mapping[str, Any]) -> None:
    """Attach a method to a network of the supervised loop; raises UsageError as it does."""
    stack = 2 if table["name"] in ("mlp", "cnn") else 1
    task = parse_task(
        {
            "name": "where-it-works",
            "family": "warm-start",
            "seeds": "0-1",
            "data": {"name": "images"},
            "net": dict(table),
            "optimizer": {"lr": 1e-3},
            "training": {"batch": 8, "stack": stack},
            "phases": [{"new": 0.5, "updates": 20}, {"new": 0.5, "updates": 20}],
        },
        "where it works",
    )
    assert isinstance(task, Task)
    SupervisedRun(task, _images(), resolve(method).build(), range(stack), "test", Compute("cpu"))


def on_agent(method: str, algorithm: str) -> None:
    """Attach a method to an agent of stable-baselines3; raises UsageError as it does."""
    cls = ht_bench.sb3.find_algorithm(algorithm)
    is_on_policy = algorithm in ("ppo", "a2c")
    sizes: dict[str, Any] = {"n_steps": 8} if is_on_policy else {"buffer_size": 50}
    spec = resolve(method, agent=True)
    plasticity = {"plasticity": method, "plasticity_kwargs": dict(spec.hyperparameters)}
    environment = "Pendulum-v1" if algorithm in ("sac", "td3") else "CartPole-v1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cls(
            "PlasticMlpPolicy",
            gymnasium.make(environment),
            policy_kwargs={"net_arch": [8, 4], **plasticity},
            device="cpu",
            seed=0,
            **sizes,
        )


def refusal(attach: Callable[[], None]) -> str:
    """Return why a method cannot be attached, in its own words; "" where it can."""
    try:
        attach()
    except UsageError as error:
        return " ".join(str(error).split())
    return ""


def works(method: str, place: str) -> str:
    """Return "" where a method works in a place, of PLACES; else the sentence that refuses it."""
    if place in NETWORKS:
        return refusal(lambda: on_network(method, NETWORKS[place]))
    return refusal(lambda: on_agent(method, ALGORITHMS[place]))


# ---- the page ----


@functools.cache
def _costs() -> dict[str, str]:
    """Method → step time relative to `none`, as measured."""
    found = {}
    for path in sorted((ROOT / "benchmarks" / "results").glob("methods-*.json")):
        device = path.stem.rpartition("-")[2]
        for row in json.loads(path.read_text(encoding="utf-8"))["rows"]:
            suffix = "" if device == "cpu" else f" ({device})"
            found[row["claim"]] = f"{row['ratio']['median']:.2f}{suffix}"
            if row["claim"] == "none":  # against itself: what the others' ratios are worth
                found["none"] = f"1 ({found['none']})"
    return found


def _tuned(recipe: Recipe) -> dict[str, str]:
    """Task → the regimes in which a search of it is recorded."""
    marks = {"w": recipe.search, "f": recipe.search_first}
    tasks = sorted({task for searches in marks.values() for task in searches})
    return {task: "".join(m for m, s in marks.items() if task in s) for task in tasks}


def overview(answers: Mapping[str, Mapping[str, str]]) -> str:
    """Return the table of all methods."""
    head = ["method", *PLACES, "cost", "tuned on"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, places in answers.items():
        marks = ["no" if places[place] else "yes" for place in PLACES]
        tasks = sum(map(bool, _tuned(recipe_of(name))))
        cells = [f"[`{name}`](#{name})", *marks, _costs().get(name, "–"), f"{tasks} tasks"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def recipe_of(name: str) -> Recipe:
    """Return the recipe of a method that has one."""
    recipe = get_recipe(name)
    assert recipe is not None
    return recipe


def rule(cls: type[Method]) -> str:
    """Return the docstring of the class, references to code as code."""
    return re.sub(r"(?<!`)`([^`]+)`(?!`)", r"`\1`", inspect.getdoc(cls) or "")


def hyperparameters(name: str, recipe: Recipe) -> str:
    """Return the table of a method's hyperparameters; "" where it has none."""
    cls = find_class(name)
    fields = [field for field in dataclasses.fields(cls) if field.init]
    if not fields:
        return "No hyperparameters."
    lines = ["| hyperparameter | default | for agents | searched on data |", "|---|---|---|---|"]
    space = recipe.search_space("")
    for field in fields:
        default = recipe.default.get(field.name, _default(field))
        agents = recipe.agents.get(field.name, "")
        values = space.get(field.name, ())
        cells = (field.name, _shown(default), _shown(agents), _searched(values))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return "" if field.default_factory is dataclasses.MISSING else field.default_factory()


def _shown(value: Any) -> str:
    return "" if value == "" else f"`{value!r}`".replace("'", '"').replace("|", "\\|")


def _searched(values: Any) -> str:
    if isinstance(values, Range):
        return f"{values.low:g} … {values.high:g}{', logarithmic' if values.log else ''}"
    return ", ".join(map(_shown, values))


def section(name: str, answers: Mapping[str, str]) -> str:
    """Return what the page says of one method."""
    recipe, cls = recipe_of(name), find_class(name)
    needs = [f"{need} ({NEEDS[need]})" for need in NEEDS if need in cls.needed()]
    if resolve(name).traits()["needs_boundaries"]:
        needs.append("told of boundaries")
    parts = [f"## {name}", recipe.summary, f"Source: {recipe.source}", rule(cls)]
    parts.append(NOTES.get(name, ""))
    parts.append(hyperparameters(name, recipe))
    parts.append(f"Needs: {'; '.join(needs) or 'nothing more'}.")
    sentences: dict[str, list[str]] = {}
    for place in PLACES:
        if answers[place]:
            sentences.setdefault(answers[place], []).append(place)
    if sentences:
        refused = [f"- {', '.join(places)}: {sentence}" for sentence, places in sentences.items()]
        parts.append("Not with:\n\n" + "\n".join(refused))
    tuned = [f"`{task}` ({marks})" for task, marks in _tuned(recipe).items()]
    parts.append(f"Tuned: {', '.join(tuned) or 'nowhere yet'}.")
    return "\n\n".join(part for part in parts if part)


def page(answers: Mapping[str, Mapping[str, str]]) -> str:
    """Return the page. answers: method → place → why it is refused there, "" where it works."""
    sections = [section(name, places) for name, places in answers.items()]
    return "\n\n".join([INTRODUCTION.rstrip(), overview(answers), *sections]) + "\n"


def read_answers(text: str) -> dict[str, dict[str, str]]:
    """Return the answers that a page was written from."""
    answers: dict[str, dict[str, str]] = {}
    for name, content in re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE):
        answers[name] = dict.fromkeys(PLACES, "")
        for places, sentence in re.findall(r"^- ([^:`]+): (.+)$", content, re.MULTILINE):
            if set(names := places.split(", ")) <= set(PLACES):
                answers[name] |= dict.fromkeys(names, sentence)
    return answers


def ask(names: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Ask the code where each method works."""
    for name in names:
        yield name, {place: works(name, place) for place in PLACES}


def main() -> int:
    """Write the page."""
    with contextlib.redirect_stdout(sys.stderr):
        answers = dict(ask(recipe_names()))
    PAGE.write_text(page(answers), encoding="utf-8")
    print(f"Wrote {PAGE}: {len(answers)} methods.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
