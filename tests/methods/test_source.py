"""Which code a method is: the files that define it and what they import beside them."""

import functools
import sys
from dataclasses import dataclass, make_dataclass
from pathlib import Path

import pytest

import ht_bench
from ht_bench import registry
from ht_bench.errors import UsageError
from ht_bench.local_code import local_files
from ht_bench.methods.base import Method
from ht_bench.methods.penalties import L2
from ht_bench.methods.resolve import find_class, resolve
from ht_bench.methods.source import source_hash, source_of

FILES = {
    "mine.py": """\
from dataclasses import dataclass
import ht_bench
from near_helpers.rules import shrink
import near_constants
FACTOR = 1.0
class Base(ht_bench.Method):
    pass
@dataclass(eq=False)
class Mine(Base):
    strength: float = 0.5
    def after_step(self):
        from near_lazy import late
        shrink(self.module.parameters(), FACTOR * near_constants.SCALE * late)
""",
    "near_constants.py": "SCALE = 1.0\n",
    "near_lazy.py": "late = 1.0\n",
    "near_helpers/__init__.py": "",
    "near_helpers/rules.py": "from .deeper import act\ndef shrink(p, f): act(p, f)\n",
    "near_helpers/deeper.py": "def act(parameters, factor): pass\n",
    "unrelated.py": "VALUE = 1\n",
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def hash_of(project: Path) -> str:
    return resolve(f"{project / 'mine.py'}:Mine").source_sha256


@pytest.mark.parametrize("name", FILES)
def test_an_edit_of_any_file_behind_a_method_is_another_method(project: Path, name: str) -> None:
    """In one process too: the file is imported anew, and so is what it imports beside it."""
    before = hash_of(project)
    assert hash_of(project) == before
    with (project / name).open("a", encoding="utf-8") as file:
        file.write("\nADDED = 1\n")
    assert (hash_of(project) == before) == (name == "unrelated.py")


def test_what_runs_is_what_the_hash_says(project: Path) -> None:
    path = project / "mine.py"
    spec = resolve(f"{path}:Mine")
    helper = project / "near_helpers" / "deeper.py"
    helper.write_text("EDITED = True\ndef act(parameters, factor): pass\n", encoding="utf-8")
    resolve(f"{path}:Mine")
    assert sys.modules["near_helpers.deeper"].EDITED  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="'Mine' was edited after this command had begun"):
        spec.check_source()


def test_the_hash_knows_nothing_of_places_and_line_ends(project: Path) -> None:
    before = hash_of(project)
    moved = project / "moved"
    moved.mkdir()
    for name, text in FILES.items():
        (moved / name).parent.mkdir(exist_ok=True)
        (moved / name).write_bytes(text.replace("\n", "\r\n").encode())
    assert source_hash(find_class(f"{moved / 'mine.py'}:Mine")) == before


def test_two_classes_of_a_file_are_two_methods(project: Path) -> None:
    path = project / "mine.py"
    assert source_hash(find_class(f"{path}:Base")) != source_hash(find_class(f"{path}:Mine"))


def test_built_in_methods_have_the_files_of_their_own_folder() -> None:
    """What a built-in imports among the methods, and nothing of the rest: versions speak for it."""
    files = local_files(Path(sys.modules[L2.__module__].__file__ or ""))
    names = {path.name for path in files}
    assert {"penalties.py", "base.py"} <= names and "resolve.py" not in names
    assert {path.parent.name for path in files} == {"methods"}
    hashes = {name: source_hash(find_class(name)) for name in registry.methods.built_in}
    assert len(set(hashes.values())) == len(hashes)
    assert all(source_of(find_class(name)).known for name in hashes)


def test_bases_in_other_files_count(project: Path) -> None:
    (project / "derived.py").write_text(
        "import sys\nmine = sys.modules['near_base']\nclass Derived(mine.Thing): pass\n"
    )
    (project / "near_base.py").write_text("import ht_bench\nclass Thing(ht_bench.Method): pass\n")
    sys.path.append(str(project))
    __import__("near_base")
    cls = find_class(f"{project / 'derived.py'}:Derived")
    before = source_hash(cls)
    (project / "near_base.py").write_text("import ht_bench\nclass Thing(ht_bench.Method): a = 1\n")
    clear = sys.modules["ht_bench.methods.source"]._source_of.cache_clear
    clear()
    assert source_hash(cls) != before
    del sys.modules["near_base"]


def made_by(factor: float, rule: object = None) -> type[Method]:
    class Made(Method):
        scale = factor

        def after_step(self) -> None:
            assert factor and rule is not self

    return Made


def test_a_class_without_files_is_nobody_elses() -> None:
    namespace: dict[str, type[Method]] = {"Method": Method, "__name__": "__main__"}
    exec("class Typed(Method): pass", namespace)
    unknown = [namespace["Typed"], type("Typed", (Method,), {}), make_dataclass("Data", [])]
    unknown += [type("Own", (Method,), {"__module__": __name__}), made_by(1.0, object())]
    sources = [source_of(cls) for cls in unknown]
    assert not any(source.known for source in sources)
    assert len({source.sha256 for source in sources}) == len(sources)
    assert source_of(unknown[0]) == sources[0]  # one class, one hash, as long as it lives


def test_what_a_function_gave_its_class_counts() -> None:
    assert source_of(made_by(1.0)).known
    assert source_hash(made_by(1.0)) == source_hash(made_by(1.0))
    assert source_hash(made_by(1.0)) != source_hash(made_by(2.0))
    assert source_of(made_by(1.0, functools.partial)).known


# ---- names ----


class Zero(Method):
    """Registered nowhere."""


class Slower(ht_bench.HareTortoise):
    """Inherits a built-in's name."""


@dataclass(eq=False)
class Anchor(Method):
    name = "none"


@dataclass(eq=False)
class Ema(ht_bench.HareTortoise):
    name = "hare-tortoise"


@pytest.mark.parametrize("cls", [Zero, Slower])
def test_an_inherited_name_is_not_the_class_s_own(cls: type[Method]) -> None:
    assert resolve(cls).name == resolve(cls()).name == cls.__name__


@pytest.mark.parametrize("cls", [Anchor, Ema])
def test_a_registered_name_belongs_to_its_class(cls: type[Method]) -> None:
    for named in (cls, cls(), f"{__file__}:{cls.__name__}"):
        with pytest.raises(UsageError) as refused:
            resolve(named)
        sentence = str(refused.value)
        assert f"method name '{cls.name}' is taken by" in sentence
        registered = registry.methods.get(cls.name)
        assert f"{registered.__qualname__}" in sentence and f"{__file__}:" in sentence


def test_built_in_classes_keep_their_names() -> None:
    assert resolve(Method()).name == resolve(Method).name == "none"
    assert resolve(ht_bench.HareTortoise()).name == "hare-tortoise"


def test_of_an_installed_package_its_own_files_count(tmp_path: Path) -> None:
    """Not those of the libraries beside it: they are thousands, and have versions."""
    place = tmp_path / "site-packages"
    (place / "theirs").mkdir(parents=True)
    (place / "other").mkdir()
    (place / "other" / "__init__.py").write_text("", encoding="utf-8")
    (place / "theirs" / "__init__.py").write_text("", encoding="utf-8")
    (place / "theirs" / "part.py").write_text("import other\n", encoding="utf-8")
    method = place / "theirs" / "method.py"
    method.write_text("import other\nfrom theirs import part\nfrom . import part\n")
    names = [path.relative_to(place).as_posix() for path in local_files(method)]
    assert sorted(names) == ["theirs/__init__.py", "theirs/method.py", "theirs/part.py"]
