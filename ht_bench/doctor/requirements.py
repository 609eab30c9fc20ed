"""What the package and its extras need, and which of it is installed."""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

import ht_bench.files

NAME = "ht-bench"
PIP = "python -m pip install"
FOR_DEVELOPERS = ("all", "bench", "dev")
MODULES = {"opencv-python-headless": "cv2", "pillow": "PIL"}
"""Packages whose module is not called as they are."""


def checkout() -> Path | None:
    """Return the folder of the checkout that the package is imported from; None for a wheel."""
    root = Path(ht_bench.files.__file__).resolve().parent.parent
    return root if (root / "pyproject.toml").is_file() and (root / "tasks").is_dir() else None


def requirements() -> dict[str, list[Requirement]]:
    """Return extra → what it needs; "" has what the package itself needs.

    From a checkout's own file, since pip's answer is as old as the last installation.
    """
    root = checkout()
    if root is not None:
        text = (root / "pyproject.toml").read_text(encoding="utf-8")
        project = tomllib.loads(text)["project"]
        listed = {"": project["dependencies"], **project["optional-dependencies"]}
        return {extra: list(map(Requirement, texts)) for extra, texts in listed.items()}
    return _of_distribution(NAME)


def _of_distribution(name: str) -> dict[str, list[Requirement]]:
    told = metadata.distribution(name)
    extras = ["", *(told.metadata.get_all("Provides-Extra") or ())]
    all_of_them = list(map(Requirement, told.requires or ()))
    answer: dict[str, list[Requirement]] = {extra: [] for extra in extras}
    for requirement in all_of_them:
        for extra in extras:
            marker = requirement.marker
            needed = marker is None or marker.evaluate({"extra": extra})
            if needed and (extra == "" or requirement not in answer[""]):
                answer[extra].append(requirement)
    return answer


def extras() -> dict[str, list[Requirement]]:
    """Return the extras for users: name → what each needs, what is named with an extra spelt out.

    "gymnasium[mujoco]" is followed by what gymnasium's extra needs.
    """
    answer = {}
    for extra, needed in requirements().items():
        if extra in ("", *FOR_DEVELOPERS):
            continue
        answer[extra] = list(needed)
        for requirement in needed:
            if requirement.extras and installed(requirement.name):
                theirs = _of_distribution(requirement.name)
                for name in requirement.extras:
                    answer[extra] += theirs.get(name, [])
    return answer


def installed(name: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def module_of(name: str) -> str:
    """Return the module that a package is imported by."""
    return MODULES.get(name.lower(), name.lower().replace("-", "_"))
