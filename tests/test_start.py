"""What a start does without."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.tiny import FLAGS, array_file

CODE = """
import sys
import nearfar.run  # which writes the report after training, and loads scikit-learn for its map
from nearfar.cli import main
from nearfar.training import job

train = job.train

def trained(*args, **options):
    finished = train(*args, **options)
    loaded = sys.modules.keys() & {"sklearn", "scipy.stats", "scipy.optimize", "timm", "torchvision"}
    assert not loaded, sorted(loaded)
    return finished

job.train = trained
assert main(sys.argv[2:]) == 0

import torch
import torch.distributed
from torch import nn
from nearfar.training.parallel import parallel

store = torch.distributed.FileStore(sys.argv[1], 1)
torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
net = parallel(nn.Linear(3, 1))
assert isinstance(net, nn.parallel.DistributedDataParallel)
net(torch.ones(2, 3)).sum().backward()
assert (net.module.weight.grad == 2).all()
assert "torch._dynamo" not in sys.modules

import torch._dynamo

assert torch._dynamo.utils.get_optimize_ddp_mode() == "ddp_optimizer"  # what stood in is gone, and was right
"""


def test_training_with_a_probe_and_ddp_load_no_library_that_they_do_not_need(tmp_path: Path) -> None:
    argv = ["train", "simclr", str(array_file(tmp_path / "images.npz")), *FLAGS, "--out", str(tmp_path / "run")]
    words = [sys.executable, "-c", CODE, str(tmp_path / "store"), *argv]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    assert "knn" in (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8")
