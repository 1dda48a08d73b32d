"""What ``import skdl`` brings with it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import skdl

#: Of the source; those that others import are attributes of the package as well.
PACKAGES = ["closed_form", "data", "engine", "estimators", "model_selection", "nn", "tasks"]
LATER = ["sklearn.metrics", "sklearn.linear_model", "sklearn.neighbors", "sklearn.tree", "sklearn.model_selection"]
LATER += ["pandas", "polars", "pyarrow", "matplotlib", "PIL"]


def imported_by(statement, after):
    code = (
        f"{after}; import sys; before = set(sys.modules); {statement}; "
        "print(*{name for name in sys.modules if name not in before})"
    )
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_what_few_need_is_imported_when_it_is_needed():
    names = imported_by("from skdl import *", after="import torch, sklearn.base")
    assert "skdl.estimators.images.cnn" in names and not set(LATER) & names


def test_estimators_are_imported_when_they_are_asked_for():
    assert not {"torch", "sklearn", "numpy"} & imported_by("import skdl", after="import json")
    names = imported_by("import skdl; skdl.MLPClassifier", after="import torch")
    assert "skdl.estimators.tables.mlp" in names and "skdl.estimators.images.cnn" not in names


@pytest.mark.parametrize("package", ["nn", "engine"])
def test_networks_and_their_training_know_nothing_of_scikit_learn(package):
    folder = Path(skdl.__file__).parent / package
    modules = {f"skdl.{package}.{path.stem}" for path in folder.glob("[!_]*.py")}
    names = imported_by(f"import {', '.join(modules)}", after="import torch")
    assert modules <= names and "sklearn" not in names


#: What each folder imports of the others.
IMPORTS = {
    "data": set(),
    "closed_form": {"data"},
    "tasks": {"data"},
    "nn": {"data"},
    "engine": {"data", "tasks", "nn"},
    "estimators": {"data", "closed_form", "tasks", "nn", "engine"},
    "model_selection": {"data", "engine"},
    "display": {"data", "estimators"},
    "datasets": set(),
}


def folders_imported_by(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("skdl."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("skdl."))


@pytest.mark.parametrize("folder", sorted(IMPORTS))
def test_imports_go_one_way(folder):
    files = list((Path(skdl.__file__).parent / folder).rglob("*.py"))
    assert files and {name for path in files for name in folders_imported_by(path)} - {folder} <= IMPORTS[folder]


def test_every_folder_has_its_imports():
    assert {path.parent.name for path in Path(skdl.__file__).parent.glob("*/__init__.py")} == set(IMPORTS)


def test_all_names_are_there():
    assert {*skdl.__all__, "datasets", "display"} == set(skdl._MODULES) <= set(dir(skdl))
    assert not [name for name in dir(skdl) if name[0] != "_" and name not in skdl._MODULES and name not in PACKAGES]
    for name in skdl.__all__:
        assert getattr(skdl, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'MLP'"):
        skdl.MLP  # noqa: B018


def test_packages_are_imported_when_they_are_asked_for():
    code = "import skdl; print(skdl.datasets.load_penguins.__name__, skdl.display.SaliencyDisplay.__name__)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.split() == ["load_penguins", "SaliencyDisplay"]
