"""Names to things: built in, registered, found by entry point, or in a user's file."""

import importlib
import itertools
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import ht_bench
from ht_bench import loading, registry
from ht_bench.errors import UsageError
from ht_bench.loading import load_reference
from ht_bench.methods.base import Method
from ht_bench.registry import Registry


@pytest.fixture
def things() -> Registry:
    built_in = {"path": "pathlib:Path", "lost": "no_such:Thing"}
    return Registry("thing", "ht_bench.tests", lambda: built_in)


def test_built_in_names_are_loaded_when_asked_for(things: Registry) -> None:
    assert things.names() == ["path", "lost"]
    assert things.get("path") is Path
    with pytest.raises(UsageError, match="Could not import no_such"):
        things.get("lost")


def test_an_unknown_name_gets_the_nearest_one(things: Registry) -> None:
    with pytest.raises(
        UsageError, match=r"Unknown thing 'pathh'. Did you mean 'path'.*list things"
    ):
        things.get("pathh")
    with pytest.raises(UsageError, match=r"Unknown thing 'zzz'. `ht-bench list"):
        things.get("zzz")


def test_registering(things: Registry) -> None:
    @things.register("mine")
    class Mine:
        pass

    assert things.get("mine") is Mine
    assert things.names()[-1] == "mine"
    with pytest.raises(UsageError, match="The thing name 'mine' is taken"):
        things.register("mine")(dict)
    with pytest.raises(UsageError, match="The thing name 'path' is taken"):
        things.register("path")(dict)
    assert things.get("mine") is Mine


def test_one_definition_imported_twice_is_one_thing(things: Registry) -> None:
    """A script's class is met once as __main__'s and once as its module's."""

    def define() -> type:
        class Mine:
            pass

        return Mine

    first, second = define(), define()
    things.register("mine")(first)
    things.register("mine")(second)
    assert things.get("mine") is second
    things.register("path")(Path)  # the built-in itself


REGISTERS = """\
import ht_bench
@ht_bench.register_method("twice")
class Mine(ht_bench.Method):
    factor = {factor}
"""


def test_two_files_cannot_register_one_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same file again can: a module that is reloaded, a worker that imports it."""
    monkeypatch.setattr(registry, "methods", Registry("method", "none", registry._implementations))
    monkeypatch.syspath_prepend(tmp_path)
    paths = [tmp_path / "first_file.py", tmp_path / "second_file.py"]
    for factor, path in enumerate(paths):
        path.write_text(REGISTERS.format(factor=factor), encoding="utf-8")
    module = importlib.import_module("first_file")
    first = importlib.reload(module).Mine
    assert registry.methods.get("twice") is first
    assert loading.load_file(paths[0]).Mine is registry.methods.get("twice")
    with pytest.raises(UsageError, match=r"first_file\.py:Mine; give .*second_file\.py:Mine"):
        loading.load_file(paths[1])
    assert registry.methods.get("twice").factor == 0


def test_a_cell_that_is_run_again_registers_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "methods", Registry("method", "none", registry._implementations))
    for factor in (1, 2):
        exec(REGISTERS.format(factor=factor), {"__name__": "notebook"})
    assert registry.methods.get("twice").factor == 2
    cell = REGISTERS.format(factor=3)
    with pytest.raises(UsageError, match="taken by notebook:Mine; give notebook:Other"):
        exec(cell.replace("Mine", "Other"), {"__name__": "notebook"})


def test_a_name_given_by_two_installed_packages_is_refused_when_asked_for(
    things: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = [
        EntryPoint("mine", value, "ht_bench.tests")
        for value in ("collections:Counter", "collections:deque")
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    assert things.get("path") is Path
    with pytest.raises(UsageError, match="given twice, to collections:Counter and by .*deque"):
        things.get("mine")


def test_entry_points_are_found_and_never_hide_a_built_in(
    things: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def entry_points(group: str) -> list[EntryPoint]:
        asked.append(group)
        values = {"theirs": "collections:OrderedDict", "path": "collections:Counter"}
        return [EntryPoint(name, value, group) for name, value in values.items()]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    assert things.names() == ["path", "lost", "theirs"]
    assert things.get("theirs").__name__ == "OrderedDict"
    assert things.get("path") is Path
    assert asked == ["ht_bench.tests"]  # looked up once


@pytest.mark.parametrize("name", registry.methods.names())
def test_every_method_is_there_under_its_own_name(name: str) -> None:
    cls = registry.methods.get(name)
    assert issubclass(cls, Method)
    assert cls.name == name
    assert cls.__doc__
    assert getattr(ht_bench, cls.__name__) is cls and cls.__name__ in dir(ht_bench)


def test_the_package_s_names_are_the_recipes_and_a_few_more() -> None:
    classes = {place.split(":")[1] for place in registry.methods.built_in.values()}
    more = {"UsageError", "__version__", "Loop", "Result"}
    more |= {"compare", "diagnose", "evaluate", "get_task", "measure"}
    more |= {f"register_{kind}" for kind in registry.KINDS}
    assert set(ht_bench.__all__) == classes | more
    assert all(hasattr(ht_bench, name) for name in ht_bench.__all__)
    for name in ("FullRest", "no_such", "L2x"):
        assert not hasattr(ht_bench, name)


def test_a_recipe_makes_a_method_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name and class; one that names no class, or is no TOML, hinders nobody."""
    (tmp_path / "mine.toml").write_text("implementation = 'pathlib:Path'\n", encoding="utf-8")
    (tmp_path / "broken.toml").write_bytes(b"\xff implementation = 'pathlib:Path'")
    (tmp_path / "plain.toml").write_text('method = "plain"\n', encoding="utf-8")
    monkeypatch.setattr(registry, "folder", lambda name: tmp_path)
    own = Registry("method", "ht_bench.tests", registry._implementations)
    monkeypatch.setattr(registry, "methods", own)
    assert own.names() == ["mine"]
    assert own.get("mine") is Path is ht_bench.Path
    assert "Path" in ht_bench.__all__ and "FullReset" not in ht_bench.__all__


# ---- references ----


def write(folder: Path, text: str) -> str:
    path = folder / "mine.py"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_file_is_imported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "class Mine: pass\nclass Other: pass\n")
    first = load_reference(f"{path}:Mine")
    monkeypatch.chdir(tmp_path)
    assert load_reference("mine.py:Mine") is first
    assert load_reference(f"{path}:Other").__module__ == first.__module__


def test_a_file_may_import_what_stands_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_helper_beside.py").write_text("VALUE = 3\n", encoding="utf-8")
    path = write(tmp_path, "from my_helper_beside import VALUE\n")
    assert load_reference(f"{path}:VALUE") == 3


def test_helpers_of_one_name_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file has those beside it; one of the program's own name is refused."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    found = []
    for value, folder in enumerate(("a", "b")):
        (tmp_path / folder).mkdir()
        helper = tmp_path / folder / "helper_of_one_name.py"
        helper.write_text(f"VALUE = {value}\n", encoding="utf-8")
        path = write(tmp_path / folder, "from helper_of_one_name import VALUE\n")
        found.append(load_reference(f"{path}:VALUE"))
    assert found == [0, 1]
    (tmp_path / "conftest.py").write_text("", encoding="utf-8")
    monkeypatch.setitem(sys.modules, "conftest", sys.modules[__name__])
    with pytest.raises(UsageError, match="another conftest already, .*rename conftest.py"):
        load_reference(write(tmp_path, "import conftest") + ":conftest")


def test_files_of_one_name_do_not_mix(tmp_path: Path) -> None:
    found = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        found.append(load_reference(write(tmp_path / folder, f"value = {folder!r}") + ":value"))
    assert found == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "attribute", "sentence"),
    [
        ("class Mine: pass", "Mime", "has no 'Mime'. Did you mean 'Mine'"),
        ("1 / 0", "Mine", "failed while it was imported: ZeroDivisionError: division by zero"),
        ("def", "Mine", "failed while it was imported: SyntaxError"),
        ("import no_such_module", "Mine", "ModuleNotFoundError: No module named 'no_such_module'"),
    ],
)
def test_a_file_that_does_not_serve(
    tmp_path: Path, text: str, attribute: str, sentence: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UsageError, match=sentence):
        load_reference(f"{path}:{attribute}")


def test_a_file_that_failed_is_imported_anew(tmp_path: Path) -> None:
    path = write(tmp_path, "1 / 0")
    with pytest.raises(UsageError):
        load_reference(f"{path}:Mine")
    write(tmp_path, "Mine = 12345")
    assert load_reference(f"{path}:Mine") == 12345


@pytest.mark.parametrize("reference", ["absent.py:Mine", "pathlib:Pathh", "no_such:Thing", "x"])
def test_what_does_not_exist(reference: str) -> None:
    with pytest.raises(UsageError):
        load_reference(reference)


def test_ctrl_c_during_an_import_stays_one(tmp_path: Path) -> None:
    path = write(tmp_path, "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load_reference(f"{path}:Mine")


def test_the_registries_share_nothing() -> None:
    names = [set(each.names()) for each in registry.KINDS.values()]
    shared = {name for one, other in itertools.combinations(names, 2) for name in one & other}
    assert shared <= {*registry.methods.names(), "none"}  # recipes are called as their methods
