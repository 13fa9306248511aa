from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.bench import plot
from benchmarks.bench.results import machine_kind
from benchmarks.bench.section import SECTIONS
from benchmarks.bench.targets import reports, table

RESULTS = Path(__file__).parents[1] / "results"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description="Speed and memory beside others.")
    parser.add_argument("sections", nargs="*", metavar="section", help=f"{', '.join(SECTIONS)}; all unless told")
    parser.add_argument("--threads", type=_threads, help="a number, or all; one and all in turn unless told")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that all works; keeps no results")
    parser.add_argument("--compile", action="store_true", help="plain losses compiled, too (needs a C++ compiler)")
    parser.add_argument("--out", type=Path, help="folder for the results; benchmarks/results unless told")
    asked = parser.parse_args()
    for name in asked.sections:
        if name not in SECTIONS:
            parser.error(f"there is no section {name!r}; there are {', '.join(SECTIONS)}")
    options = [name for name in ("quick", "compile") if getattr(asked, name)]
    with tempfile.TemporaryDirectory() as temporary:
        out = asked.out or (Path(temporary) if asked.quick else RESULTS)
        failed = []
        for name in asked.sections or SECTIONS:
            for threads in [asked.threads] if asked.threads else [_threads(t) for t in SECTIONS[name][2]]:
                print(f"\n== {name}, {threads} thread{'s' * (threads > 1)}", flush=True)
                command = [sys.executable, "-m", "benchmarks.bench.section", name, str(threads), str(out), *options]
                if subprocess.run(command, env=os.environ | _environment(threads)).returncode:
                    failed.append(f"{name} on {threads}")
        found = reports(out, machine_kind())
        text = table(found)
        print(f"\n{text}")
        if found:
            draw(found, out)
            (out / f"targets-{machine_kind()}.txt").write_text(text + "\n", encoding="utf-8")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def draw(found: list[dict], out: Path) -> None:
    """Time and extra memory of NT-Xent against N, from saved results."""
    kind = machine_kind()
    for report in found:
        threads = report["setting"]["threads"]
        times: plot.Series = {"nearfar": []}
        for row in report["rows"]:
            if row["name"] == "NT-Xent" and row["size"]["D"] == 128:
                for who, spread in row["seconds"].items():
                    times.setdefault(who, []).append((row["size"]["N"], spread["median"]))
        on = f"{threads} thread{'s' * (threads > 1)}"
        title = f"NT-Xent, forward and backward, D = 128, {on}"
        plot.save(out / f"nt_xent-time-{threads}-threads-{kind}.svg", title, "N (batch; 2N rows)", "seconds", times)
        peaks: plot.Series = {"nearfar": []}
        for peak in report["peaks"]:
            for who, value in peak["MiB"].items() if peak["name"] == "NT-Xent" else ():
                if isinstance(value, float) and value > 0:
                    peaks.setdefault(who, []).append((peak["size"]["N"], value))
        title = "NT-Xent, peak memory beyond the inputs, D = 128"
        plot.save(out / f"nt_xent-memory-{kind}.svg", title, "N (batch; 2N rows)", "MiB", peaks)


def _threads(text: str) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = {"one": 1, "all": cores}.get(text) or int(text)
    if threads < 1:
        raise argparse.ArgumentTypeError(f"{text} threads; at least 1 is needed")
    return threads


def _environment(threads: int) -> dict[str, str]:
    """Set before torch starts. The last two keep libraries from asking the network for newer versions of themselves."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return dict.fromkeys(names, str(threads)) | {"NO_ALBUMENTATIONS_UPDATE": "1", "LIGHTLY_DID_VERSION_CHECK": "True"}


if __name__ == "__main__":
    sys.exit(main())
