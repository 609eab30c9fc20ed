"""What a user names → a method to run."""

import dataclasses
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pytest

from ht_bench.errors import UsageError
from ht_bench.methods.base import Method
from ht_bench.methods.hare_tortoise import HareTortoise
from ht_bench.methods.resolve import MethodSpec, resolve

if TYPE_CHECKING:
    from decimal import Decimal

SOURCE = """\
from dataclasses import dataclass
import ht_bench

@dataclass(eq=False)
class Mine(ht_bench.Method):
    strength: float = 0.5
"""


@dataclass(eq=False)
class Typed(Method):
    """One hyperparameter of each kind."""

    name: ClassVar[str] = "typed"
    whole: int = 1
    number: float = 1.0
    flag: bool = False
    text: str = "a"
    optional: int | None = None
    several: int | str | None = None
    choice: Literal["a", "b"] = "a"
    listed: list[int] = dataclasses.field(default_factory=list)
    anything: Any = None


@dataclass(eq=False)
class Unresolved(Method):
    """Its annotation exists for the type checker alone."""

    amount: "Decimal | None" = None


def test_a_name_a_class_and_an_instance() -> None:
    settings = {"decay": 0.5, "reset_every": 3}
    specs = [
        resolve("hare-tortoise", "", settings),
        resolve(HareTortoise, "", settings),
        resolve(HareTortoise(decay=0.5, reset_every=3)),
        resolve(HareTortoise(decay=0.1), "", settings),
    ]
    for spec in specs:
        assert spec.name == "hare-tortoise" and spec.built_in
        assert spec.hyperparameters == specs[0].hyperparameters
        assert spec.source_sha256 == specs[0].source_sha256
        built = spec.build()
        assert isinstance(built, HareTortoise) and not hasattr(built, "module")
        assert (built.decay, built.reset_every) == (0.5, 3)
        assert built is not spec.build()


def test_all_hyperparameters_are_written_out() -> None:
    """Defaults too, so that a result says what made it when they change later."""
    fields = {field.name for field in dataclasses.fields(HareTortoise) if field.init}
    assert set(resolve(HareTortoise).hyperparameters) == fields


def test_a_class_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(SOURCE, encoding="utf-8")
    spec = resolve(f"{path}:Mine", "", {"strength": 2})
    assert (spec.name, spec.built_in, spec.hyperparameters) == ("Mine", False, {"strength": 2})
    assert pickle.loads(pickle.dumps(spec)).build().strength == 2


@pytest.mark.parametrize("named", ["none", "l2", Typed, Typed(whole=3)])
def test_a_spec_goes_to_a_worker(named: Any) -> None:
    spec = resolve(named)
    again: MethodSpec = pickle.loads(pickle.dumps(spec))
    assert again == spec
    assert type(again.build()) is type(spec.build())


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        ("hare-tortoisse", "Unknown method 'hare-tortoisse'. Did you mean 'hare-tortoise'"),
        ("absent.py:Mine", "There is no file .*absent.py"),
        ("absent.py", "absent.py is a file; say what in it too: .*absent.py:Name"),
        (dict, "is not a subclass of ht_bench.Method; make it one"),
        (None, "None is not a subclass of ht_bench.Method"),
        (lambda: None, "is not a subclass of ht_bench.Method"),
    ],
)
def test_what_is_no_method(named: Any, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        resolve(named)


def test_an_unknown_hyperparameter_is_suggested() -> None:
    with pytest.raises(UsageError, match=r"no hyperparameter 'strenth'. Did you mean 'strength'"):
        resolve("l2", "", {"strenth": 1})
    with pytest.raises(UsageError, match=r"'none' has no hyperparameter 'x', nor any other; name"):
        resolve("none", "", {"x": 1})
    with pytest.raises(UsageError, match="no hyperparameter 'generator'"):
        resolve("l2", "", {"generator": None})


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        ("whole", [3, -1], [1.5, "3", None, True, [1]]),
        ("number", [3, 0.5, -1e300], ["0.5", None, True, [1.0], {}]),
        ("flag", [True, False], [1, "true", None]),
        ("text", ["b", ""], [1, None, True]),
        ("optional", [None, 4], [1.5, "4", True]),
        ("several", [None, 4, "10 epochs"], [1.5, True, [1]]),
        ("choice", ["a", "b"], []),  # the method itself judges
        ("listed", [[1, 2], []], []),
        ("anything", [None, 1, "a", [1]], []),
    ],
)
def test_values_have_the_field_s_type(key: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        assert resolve(Typed, "", {key: value}).hyperparameters[key] == value
    for value in bad:
        with pytest.raises(UsageError, match=f"Method 'typed': {key} = .* is not of type"):
            resolve(Typed, "", {key: value})


@pytest.mark.parametrize("key", ["number", "anything", "whole"])
@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_what_is_not_finite_is_refused(key: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"Method 'typed': {key} = .* is not a finite number"):
        resolve(Typed, "", {key: value})


def test_an_annotation_that_cannot_be_read_is_not_judged() -> None:
    assert resolve(Unresolved, "", {"amount": 3}).hyperparameters == {"amount": 3}


@pytest.mark.parametrize("name", ["../../outside", "my/method", "a\nb", "", "..", "-x"])
def test_a_name_that_cannot_name_a_folder_is_refused(name: str) -> None:
    made = type("Made", (Method,), {"name": name})
    with pytest.raises(UsageError, match="cannot name a folder of runs"):
        resolve(made)
