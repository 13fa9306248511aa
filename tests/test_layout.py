"""The rules of the house, read from the sources."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "nearfar"
FILES = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))

ROOMS = [
    *(
        "errors",
        "ranges",
        "files",
        "owner",
        "machine",
        "settings",
        "batch",
        "distributed",
        "contrast",
        "precision",
        "method",
    ),
    *("losses", "optim", "nn", "clustering", "memory", "ops", "methods"),
    *(
        "data",
        "evaluation",
        "looking",
        "modalities",
        "export",
        "training",
        "report",
        "run",
        "looks",
        "attentive",
        "across",
        "dense",
        "generation",
        "writing",
        "embeddings",
        "choosing",
        "fewlabels",
        "studies",
        "suite",
        "sklearn",
    ),
    "cli",
]
"""From the ground up: a room imports only from rooms before it. The list is whole: a room that is not in it fails."""

EXCEPT = {"methods/__init__.py"}
"""Reads the methods' files for whoever asks, from the command line down; it may run a file of the user's own."""

LIGHT = [
    *(
        "__init__.py",
        "errors.py",
        "studies/__init__.py",
        "suite/__init__.py",
        "suite/names.py",
        "ranges.py",
        "settings.py",
        "files.py",
        "owner.py",
        "methods/__init__.py",
        "training/__init__.py",
        "training/plan.py",
    ),
    *(
        "looking/__init__.py",
        "modalities/__init__.py",
        "modalities/recipes.py",
        "fewlabels/settings.py",
        "studies/asked.py",
        "modalities/recognize.py",
        "modalities/timm_names.py",
        "data/__init__.py",
        "data/csv.py",
        "training/journal.py",
    ),
    *(
        name
        for name in FILES
        if re.fullmatch(r"cli/\w+\.py|modalities/\w+/(__init__|settings|recognize|recipes/\w+)\.py", name)
    ),
]
"""What help and lists need: it imports neither torch nor NumPy."""


@cache
def imports(name: str, *, lazy: bool = True) -> frozenset[str]:
    """The modules that a file of the package imports; without `lazy`, only those that importing it needs at once."""
    tree = ast.parse((SOURCE / name).read_text(encoding="utf-8"))
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not lazy:
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not lazy:
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: imports are absolute"
            assert node.module is not None
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree)
    return frozenset(found)


def room(module: str) -> str | None:
    """The room of a module of ours: that of nearfar.losses.pairwise is losses."""
    parts = module.split(".")
    return (
        parts[1]
        if parts[0] == "nearfar"
        and len(parts) > 1
        and (SOURCE / parts[1]).with_suffix(".py").exists() | (SOURCE / parts[1]).is_dir()
        else None
    )


def rooms(name: str) -> set[str]:
    """The rooms that a file imports from, but its own."""
    own = Path(name).parts[0].removesuffix(".py")
    return {found for module in imports(name) if (found := room(module)) is not None} - {own}


def inside(*names: str) -> list[str]:
    return [file for file in FILES if Path(file).parts[0].removesuffix(".py") in names]


def test_the_list_of_rooms_is_whole() -> None:
    there = {Path(file).parts[0].removesuffix(".py") for file in FILES} - {"__init__", "__main__"}
    assert there == set(ROOMS)
    assert len(ROOMS) == len(set(ROOMS))
    assert rooms("methods/moco.py") >= {"memory", "losses", "nn", "method"}


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_imports_only_from_rooms_before_it(name: str) -> None:
    before = set(ROOMS[: ROOMS.index(name)])
    for file in inside(name):
        if file not in EXCEPT:
            assert rooms(file) <= before, f"{file} imports from {sorted(rooms(file) - before)}"


def test_methods_know_nothing_of_data_and_training() -> None:
    above = set(ROOMS[ROOMS.index("methods") + 1 :])
    for file in inside("methods"):
        assert file in EXCEPT or not rooms(file) & above, file


def test_losses_and_contrast_can_be_used_alone() -> None:
    for file in inside("losses", "contrast"):
        assert rooms(file) <= {"losses", "contrast", "distributed", "batch"}, file
        taken = {module for module in imports(file) if module.startswith("nearfar.batch.")}
        assert taken <= {"nearfar.batch.MISSING"}, file


def test_the_loop_knows_no_method_and_no_kind() -> None:
    for file in ("training/loop.py", "training/options.py", "training/feeder.py", "training/log.py"):
        assert not rooms(file) & {"methods", "losses", "memory", "modalities", "export"}, file


KINDS = sorted(path.parent.name for path in (SOURCE / "modalities").glob("*/kind.py"))


def test_nothing_outside_modalities_names_a_kind() -> None:
    named = re.compile(rf"modalities\.({'|'.join(KINDS)})\b|kind(?:\.name)?\s*(?:==|!=)\s*[\"']")
    allowed = {"__init__.py", "cli/demo.py"}  # the package's public names; and the demonstration, which is of images
    assert KINDS
    for file in FILES:
        if not file.startswith("modalities/") and file not in allowed:
            text = (SOURCE / file).read_text(encoding="utf-8")
            assert not named.search(text), f"{file}: {named.search(text)}"
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Constant):
                    other = file.startswith(("report/", "methods/"))  # keys of results; words of a flag
                    assert node.value not in KINDS or other, f"{file}:{node.lineno} {node.value!r}"


BUILT_ON = {"video": "image"}
"""A kind whose samples are made of those of another one, and which knows that one."""


def test_a_kind_knows_no_other_kind() -> None:
    for kind in KINDS:
        others = tuple(f"nearfar.modalities.{other}" for other in KINDS if other not in (kind, BUILT_ON.get(kind)))
        for file in FILES:
            if file.startswith(f"modalities/{kind}/"):
                taken = {module for module in imports(file) if module.startswith(others)}
                assert not taken, f"{file} imports {sorted(taken)}"


def test_only_one_file_speaks_to_other_processes() -> None:
    for file in FILES:
        named = {module for module in imports(file) if module.startswith("torch.distributed")}
        assert file == "distributed.py" or not named, file
        calls = re.findall(r"torch\.distributed\.|\bdist\.", (SOURCE / file).read_text(encoding="utf-8"))
        assert file == "distributed.py" or not calls, file
        wraps = any("DistributedDataParallel" in module for module in imports(file))
        assert wraps == (file == "training/parallel.py"), file


@pytest.mark.parametrize("file", LIGHT)
def test_what_help_needs_does_not_import_torch(file: str) -> None:
    heavy = {module.split(".")[0] for module in imports(file, lazy=False)} & {
        "torch",
        "timm",
        "sklearn",
        "numpy",
        "scipy",
    }
    assert not heavy
    ours = {module for module in imports(file, lazy=False) if room(module) is not None}
    free = {f"nearfar.{name.removesuffix('.py').removesuffix('/__init__').replace('/', '.')}" for name in LIGHT}
    free = {name.removesuffix(".__init__") for name in free} - {"nearfar"}
    assert {module for module in ours if not any(module == f or module.startswith(f"{f}.") for f in free)} == set()


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, nearfar, nearfar.cli, nearfar.settings; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_public_names_are_there() -> None:
    import nearfar

    for name in nearfar.__all__:
        assert getattr(nearfar, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = nearfar.nothing


def test_a_method_is_one_short_file() -> None:
    for file in inside("methods"):
        lines = len((SOURCE / file).read_text(encoding="utf-8").splitlines())
        assert lines <= 110 or file == "methods/__init__.py", f"{file} has {lines} lines"


def test_no_file_is_long() -> None:
    for file in FILES:
        lines = len((SOURCE / file).read_text(encoding="utf-8").splitlines())
        assert lines <= 600, f"{file} has {lines} lines"


ELSEWHERE = {
    "data/folders.py": "modalities/image/test_sources.py",
    "data/tables.py": "modalities/table/test_samples.py",
    "data/source.py": "training/test_loop.py",
    "nn/critic.py": "methods/test_contragan.py",
    "nn/writer.py": "modalities/text/test_writer.py",
    "memory/bank_contrast.py": "methods/test_instdisc.py",
    "report/measured.py": "test_run.py",
    "evaluation/parts.py": "test_run.py",
    "modalities/encoder.py": "modalities/image/test_encoder.py",
    "modalities/examination.py": "modalities/image/test_doctor.py",
    "modalities/kind.py": "modalities/test_own_kind.py",
    "modalities/graph/inputs.py": "modalities/graph/test_samples.py",
    "modalities/graph/kind.py": "modalities/graph/test_graph.py",
    "modalities/graph/sources.py": "modalities/graph/test_samples.py",
    "modalities/timm_names.py": "modalities/image/test_encoder.py",
    "modalities/timm_nets.py": "modalities/image/test_encoder.py",
    "modalities/audio/kind.py": "modalities/audio/test_audio.py",
    "modalities/audio/networks.py": "modalities/audio/test_encoder.py",
    "modalities/image/color.py": "modalities/image/test_views.py",
    "modalities/image/kind.py": "modalities/image/test_views.py",
    "modalities/image/pixels.py": "modalities/image/test_decode.py",
    "modalities/image/plan.py": "modalities/image/test_views.py",
    "modalities/image/store.py": "modalities/image/test_samples.py",
    "modalities/table/kind.py": "modalities/table/test_table.py",
    "modalities/text/kind.py": "modalities/text/test_text.py",
    "modalities/video/kind.py": "modalities/video/test_video.py",
    "nn/apply.py": "test_method.py",
}
"""Files whose tests have another name."""


def test_tests_mirror_the_sources() -> None:
    """A file of a room has its test in the folder of that room, by its name, or where it is said."""
    for file in inside("losses", "memory", "clustering", "data", "optim", "nn", "ops", "modalities"):
        path = Path(file)
        if path.name in ("__init__.py", "settings.py") or path.parent.name in ("recipes", "networks"):
            continue
        test = ELSEWHERE.get(file, str(path.with_name(f"test_{path.name}")))
        assert (ROOT / "tests" / test).is_file(), file
    assert all((SOURCE / file).is_file() for file in ELSEWHERE)


def test_no_line_of_code_uses_what_the_house_does_without() -> None:
    for file in FILES:
        for node in ast.walk(ast.parse((SOURCE / file).read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.args.kwarg is not None and not node.name.startswith("_"):
                allowed = {
                    "run.py": {"fit"},
                    "ranges.py": {"call"},
                    "methods/__init__.py": {"build"},
                    "fewlabels/finetuning.py": {"finetune"},
                }
                allowed |= {
                    "ranges.py": {"call"},
                    "report/verdict.py": {"answer"},
                    "fewlabels/distillation.py": {"distill"},
                    "fewlabels/label_plan.py": {"label_plan"},
                }
                assert node.name in allowed.get(file, set()), f"{file}: {node.name} takes **{node.args.kwarg.arg}"


def tracked() -> list[Path]:
    """The text files of the project: those that git knows, or all that are not built."""
    try:
        named = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
        paths = [ROOT / name for name in named.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        paths = [path for path in ROOT.rglob("*") if not any(part.startswith((".", "_")) for part in path.parts)]
    suffixes = {
        ".py",
        ".md",
        ".toml",
        ".yaml",
        ".yml",
        ".json",
        ".jsonl",
        ".txt",
        ".cfg",
        ".cff",
        ".html",
        ".css",
        ".js",
        ".csv",
    }
    return [path for path in paths if path.is_file() and (path.suffix in suffixes or path.name in ("Makefile", "run"))]


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    # Written in parts, so that this file does not hold what it looks for.
    roots = "|".join(("home", "Users", "root", "work", "mnt", "tmp", "opt", "scratch"))
    place = re.compile(rf"(?<![\w.~/:>-])(?:/(?:{roots})/[\w.-]+|[A-Z]:\\\\?Users)")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in tracked()
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if place.search(line)
    ]
    assert found == []
