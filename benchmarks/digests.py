"""Are the numbers still the same? A digest of the weights of each method after twenty steps.

    python -m benchmarks.digests before.json                  # in one commit
    python -m benchmarks.digests after.json --beside before.json   # in another

It speaks to the library by its command line alone, so that two commits which differ in all else can be compared. Each
method is trained twenty steps on its own recipe with conv4, on color images that are made here and on a table where it
takes rows. Tensors are compared by their contents, not by their names. Two digests a method: "as it is", and "by
shape", for which initial weights depend on nothing but the shape of the tensor; so a method that no longer draws
weights which it would throw away differs in the first and agrees in the second.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import math
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

FLAGS = {
    "images": ["--encoder", "conv4", "--labels", "folders", "--recipe", "small_images", "--size", "16"],
    "table": ["--label-column", "label", "--recipe", "tables"],
}
ENCODERS = {"cmc": "ycbcr:conv4"}
SMALL = {"queue": "64", "prototypes": "20", "hidden": "64", "dim": "32", "clusters": "8", "classes": "4"}


def make_data(folder: Path) -> dict[str, Path]:
    """80 color images of four classes as folders of PNG files, and 80 rows of numbers and categories."""
    random = np.random.default_rng(0)
    images = folder / "images"
    rows = ["a,b,c,d,kind,label"]
    for i in range(80):
        kind = i % 4
        place = images / f"class{kind}"
        place.mkdir(parents=True, exist_ok=True)
        base = random.integers(0, 200, (1, 1, 3)) + random.integers(0, 56, (24, 24, 3))
        Image.fromarray(base.astype(np.uint8)).save(place / f"{i:03}.png")
        numbers = random.normal(size=4) + kind
        rows.append(",".join([*(f"{number:.4f}" for number in numbers), "xyz"[i % 3], f"class{kind}"]))
    (folder / "rows.csv").write_text("\n".join(rows) + "\n")
    return {"images": images, "table": folder / "rows.csv"}


@contextlib.contextmanager
def weights_by_shape():
    """Within: what torch.nn.init and torch.randn draw depends on the shape alone, and the generator of everything else
    goes on as if it had drawn nothing."""
    names = ["uniform_", "normal_", "trunc_normal_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_"]
    names += ["xavier_normal_", "orthogonal_"]
    before = {name: getattr(nn.init, name) for name in names}
    randn = torch.randn

    def by_shape(drawn):
        def init(tensor, *args, **kwargs):
            state = torch.get_rng_state()
            torch.manual_seed(int(hashlib.sha256(str(tuple(tensor.shape)).encode()).hexdigest()[:12], 16))
            out = drawn(tensor, *args, **kwargs)
            torch.set_rng_state(state)
            return out

        return init

    def rows(*shape, generator=None, **others):  # the first rows of queues and banks
        if generator is not None:
            return randn(*shape, generator=generator, **others)
        return by_shape(lambda tensor: tensor.normal_())(torch.empty(*shape, **others))

    for name, drawn in before.items():
        setattr(nn.init, name, by_shape(drawn))
    torch.randn = rows
    try:
        yield
    finally:
        torch.randn = randn
        for name, drawn in before.items():
            setattr(nn.init, name, drawn)


def digest(state: dict[str, object]) -> str:
    """Of the contents of a state dict: names do not count, nor how often a tensor is held."""
    contents = set()
    for value in state.values():
        if isinstance(value, torch.Tensor):
            array = value.detach().cpu().numpy()
            contents.add(hashlib.sha256(f"{array.dtype} {array.shape}".encode() + array.tobytes()).hexdigest())
    return hashlib.sha256("".join(sorted(contents)).encode()).hexdigest()[:16]


def trained(method: str, kind: str, data: Path, out: Path) -> dict[str, str]:
    """Train a method for twenty steps by the command line. What its encoder and the whole of it come to."""
    from nearfar.cli.main import main

    flags = [*FLAGS[kind]]
    if kind == "images" and method in ENCODERS:
        flags[1] = ENCODERS[method]
    words = ["train", method, str(data), "--out", str(out), "--batch", "16", "--probe-every", "0", *flags]
    words += ["--epochs", "4"]  # 80 samples, 16 a step: five steps an epoch
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = main(words)
    if status:
        return {"refused": said.getvalue().strip().splitlines()[-1]}
    from safetensors.torch import load_file

    from nearfar.training import checkpoints

    newest = max((out / "checkpoints").glob("step-*.pt"), default=None) or max((out / "checkpoints").glob("*.pt"))
    state = checkpoints.read(newest)["method"]
    losses = [json.loads(line).get("loss") for line in (out / "metrics.jsonl").read_text().splitlines()]
    losses = [loss for loss in losses if loss is not None and math.isfinite(loss)]
    return {
        "encoder": digest(load_file(out / "encoder.safetensors")),
        "method": digest(state),
        "loss": f"{losses[-1]:.6f}",
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--beside", type=Path, help="results of another commit, to compare with")
    parser.add_argument("--methods", nargs="*", help="some methods only")
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    from nearfar import methods

    made: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        data = make_data(Path(temporary))
        for method in asked.methods or methods.names():
            for kind, path in data.items():
                for mode, around in (("as it is", contextlib.nullcontext), ("by shape", weights_by_shape)):
                    with around():
                        result = trained(method, kind, path, Path(temporary) / f"{method}-{kind}-{mode[:2]}")
                    made[f"{method} {kind} {mode}"] = result
                    print(f"{method:<20} {kind:<7} {mode:<9} {' '.join(result.values())[:110]}", flush=True)
    asked.out.write_text(json.dumps({"torch": torch.__version__, "digests": made}, indent=1) + "\n")
    if asked.beside is None:
        return 0
    before = json.loads(asked.beside.read_text())["digests"]
    other = [name for name, result in made.items() if result != before.get(name) and "refused" not in result]
    same = sum(result == before.get(name) and "refused" not in result for name, result in made.items())
    print(f"{same} agree to the bit, {len(other)} differ: {', '.join(other) or 'none'}")
    return 1 if other else 0


if __name__ == "__main__":
    sys.exit(main())
