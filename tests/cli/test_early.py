"""What is wrong with a call is said before anything is decoded or trained, and names a remedy that can be given."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nearfar.cli import main
from nearfar.modalities.table.columns import Columns
from tests.tiny import array_file, folder


@pytest.fixture(scope="module")
def place(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos/, labels.csv, table.csv, plain.npz without labels, a run and a classifier."""
    root = tmp_path_factory.mktemp("place")
    folder(root / "photos", 24)
    folder(root / "sorted", 24, nested=True)
    rows = "".join(f"{i:03d}.png,{i % 4}\n" for i in range(24))
    (root / "labels.csv").write_text("path,kind\n" + rows)
    (root / "list.csv").write_text("path,kind\n" + "".join(f"photos/{line}\n" for line in rows.split()))
    (root / "table.csv").write_text("a,b,kind\n" + "".join(f"{i},{i % 3},{i % 2}\n" for i in range(20)))
    array_file(root / "plain.npz", labeled=False)
    (root / "file").write_text("precious")
    (root / "runs").mkdir()
    shutil.copytree(run, root / "run")
    (root / "run" / "checkpoints" / "best.pt").unlink()
    argv = ["finetune", str(root / "run"), str(root / "sorted"), "--labels", "folders", "--out", str(root / "few")]
    assert main(argv) == 0
    return root


@pytest.fixture
def nothing_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*args: object, **keywords: object) -> None:
        raise AssertionError("it was opened")

    monkeypatch.setattr("nearfar.modalities.image.samples.decoded", opened)
    monkeypatch.setattr("nearfar.modalities.image.samples.squashed", opened)
    monkeypatch.setattr(Columns, "learn", opened)
    monkeypatch.setattr(Columns, "encode", opened)


NOTHING, COLUMN = "nothing at 'nowhere'", "--label-column nope"

EARLY = [
    # train
    ("train simlcr photos", "did you mean simclr"),
    ("train simclr nowhere", NOTHING),
    ("train simclr run", "is a run, and DATA to look at are wanted"),
    ("train simclr photos --encoder resnet19", "did you mean resnet1"),
    ("train simclr photos --encoder ycbcr:resnet19", "did you mean resnet1"),
    ("train simclr table.csv --encoder conv4", "mlp-WIDTHxDEPTH"),
    ("train simclr photos --encoder conv4 --size 8", "conv4 cannot take images of 8 x 8 px"),
    ("train swav photos --encoder conv4 --size 16 --views swav --crops 2 1", "'conv4' cannot take views of 7 px"),
    (
        "train simclr photos --views swav --crops 2 6",
        "takes 2 views of each sample, and --views swav makes 8: give --view-count 2",
    ),
    ("train simclr photos --view-count 3", "--view-count 3 makes 3: give --view-count 2"),
    ("train moco table.csv --view-count 1", "takes 2 views"),
    ("train excon photos --views simclr --labels labels.csv --label-column kind", "takes 3 views"),
    ("train simclr photos --views ./mine.py:views", "mine.py"),
    ("train simclr photos --recipe nope", "there is no recipe 'nope'"),
    ("train simclr photos --device warp", "--device 'warp'"),
    ("train simclr photos --labels nowhere.csv", "there is no 'nowhere.csv'"),
    ("train simclr photos --labels labels.csv", "has the columns 'path', 'kind' but no label"),
    (f"train simclr photos {COLUMN}", "has no column 'nope'"),
    (f"train simclr list.csv {COLUMN}", "it has 'path', 'kind'"),
    (f"train simclr table.csv {COLUMN}", "it has 'a', 'b', 'kind'"),
    ("train supcon photos", "learns from labels and none are known"),
    ("train supcon list.csv", "learns from labels and none are known"),
    ("train supcon plain.npz", "learns from labels and none are known"),
    ("train supcon list.csv --label-column kind --labels none", "learns from labels and none are known"),
    ("train jigsaw table.csv", "takes views apart as pixels"),
    ("train simclr photos --from-run nowhere", "holds no encoder.safetensors"),
    ("train simclr photos --from-run run --encoder resnet18", "has the encoder 'conv4'"),
    ("train simclr photos --weights nowhere.pth --encoder resnet18", "no such file or folder"),
    ("train simclr photos --weights plain.npz", "name it by --encoder"),
    ("train simclr photos --weights plain.npz --encoder conv4", "cannot be read as weights"),
    ("train simclr photos --weights photos", "holds no encoder.json"),
    ("train simclr table.csv --weights run", "--weights is for data of the kind image, and these are table"),
    ("train simclr photos --weights run --encoder resnet18", "has the encoder 'conv4'"),
    ("train simclr photos --weights run --from-run run", "one of the two"),
    ("train simclr photos --recipe continue", "random weights: give others by --weights"),
    ("train simclr photos --out run", "never overwritten"),
    ("train simclr photos --out file/run", "cannot be written into"),
    ("train simclr photos --batch-size 8", "there is no flag --batch-size: it is --batch here"),
    ("train simclr photos --learning_rate=1", "it is --lr here"),
    ("train simclr photos --wd 1", "it is --weight-decay here"),
    # compare
    ("compare simclr,foo photos --labels labels.csv --label-column kind", "there is no method 'foo'"),
    ("compare simclr moco photos --epochs 1", "nearfar compare simclr,moco photos --epochs 1"),
    ("compare simclr moco", "nearfar compare simclr,moco DATA"),
    ("compare simclr photos", "two are needed"),
    ("compare simclr,moco photos", "methods are compared by labels, and none are known"),
    ("compare simclr,supcon photos --labels none", "none are known"),
    (f"compare simclr,moco list.csv {COLUMN}", "it has 'path', 'kind'"),
    ("compare simclr,moco list.csv --label-column kind --encoder resnet19", "did you mean resnet1"),
    ("compare simclr,moco list.csv --label-column kind --size 8", "conv4 cannot take images of 8 x 8"),
    ("compare simclr,moco list.csv --label-column kind --out file", "is a file"),
    ("compare simclr,jigsaw table.csv --label-column kind", "takes views apart as pixels"),
    # helps
    ("helps photos --method foo", "there is no method 'foo'"),
    ("helps photos", "no sample has a label"),
    (f"helps list.csv {COLUMN}", "it has 'path', 'kind'"),
    ("helps list.csv --label-column kind --weights nowhere.pt", "--weights 'nowhere.pt': there is no such file"),
    ("helps list.csv --label-column kind --weights file --shelf resnet19", "did you mean resnet1"),
    ("helps list.csv --label-column kind --weights file", "file is no file of plain tensors"),
    ("helps list.csv --label-column kind --run nowhere", "'nowhere' is not a run directory"),
    ("helps list.csv --label-column kind --encoder resnet19", "did you mean resnet1"),
    # transfer
    ("transfer run nowhere", "nearfar transfer run --to nowhere"),
    ("transfer --to photos", "no run"),
    ("transfer run --to nowhere", NOTHING),
    ("transfer nowhere --to .", "'nowhere' is not a run directory"),
    ("transfer run --to photos", "24 files in 'photos' without the ending of a data set: '000.png'"),
    ("transfer run --to list.csv", "a list of data sets has name, data"),
    ("transfer run --to runs", "'runs' holds no data set"),
    ("transfer run --to . --checkpoint best", "has no best checkpoint"),
    # evaluate, embed, report, export
    ("evaluate photos run", "'photos' is not a run directory"),
    ("evaluate run run", "is a run, and DATA to look at are wanted"),
    ("evaluate run nowhere", NOTHING),
    ("evaluate run photos", "evaluating takes labels, and none are known: give --labels"),
    ("evaluate run photos --labels nowhere.csv", "there is no 'nowhere.csv'"),
    ("evaluate run photos --labels labels.csv", "but no label"),
    (f"evaluate run list.csv {COLUMN}", "it has 'path', 'kind'"),
    ("evaluate run list.csv --label-column kind --test nowhere", NOTHING),
    ("evaluate run list.csv --label-column kind --test photos", "has no column 'kind'"),
    ("evaluate run sorted --labels folders --test photos", "--test takes labels"),
    ("evaluate run sorted --labels folders --test sorted --test-labels nowhere.csv", "there is no 'nowhere.csv'"),
    ("evaluate run sorted --labels folders --checkpoint best", "has no best checkpoint"),
    ("embed run photos --checkpoint best", "has no best checkpoint"),
    ("embed run photos --tower left", "has no tower 'left'"),
    ("embed run nowhere", NOTHING),
    ("embed run photos --labels nowhere.csv", "there is no 'nowhere.csv'"),
    (f"embed run photos {COLUMN}", "has no column 'nope'"),
    ("embed run photos --out file", "--out 'file' is a file, and shards need a directory: name another --out"),
    ("embed run photos --precision float16", "--precision is of shards"),
    ("embed run photos --out shards --half", "--half is of the maps"),
    ("evaluate run photos --correspondences --attentive", "measured apart"),
    ("evaluate run photos --attentive --svm", "measured apart"),
    ("evaluate run photos --attentive --align", "measured apart"),
    ("evaluate run photos --align --labels folders", "measured apart"),
    ("evaluate run photos --prompts p.csv --test photos", "measured apart"),
    ("embed run photos --out photos", "--out 'photos' holds other files"),
    ("embed run photos --out file/vectors.npz", "cannot be written"),
    ("report run few --data photos", "--data is drawn for one run"),
    ("report run --labels labels.csv", "is of --data"),
    ("report run --data nowhere", NOTHING),
    ("export run --checkpoint best", "has no best checkpoint"),
    ("export run --out run", "'run/encoder.safetensors' is there already"),
    # finetune, predict, distill, label-plan
    ("finetune run photos", "no sample to learn from has a label: give --labels"),
    ("finetune run photos --labels nowhere.csv", "there is no 'nowhere.csv'"),
    ("finetune run sorted --labels folders --layer 9", "layer 9 of a projector of 2 layers"),
    ("finetune run sorted --labels folders --share 0.5 --per-class 3", "both say how many"),
    ("finetune run sorted --labels folders --train full --device warp", "--device 'warp'"),
    ("finetune run sorted --labels folders --train full --views nope", "--views 'nope' is none of"),
    ("finetune run sorted --labels folders --checkpoint best", "has no best checkpoint"),
    ("finetune run sorted --labels folders --out few", "never overwritten"),
    ("predict nowhere photos", "'nowhere' is no directory of a classifier"),
    ("predict run photos", "is a run without a classifier"),
    ("predict few nowhere", NOTHING),
    ("predict few photos --out file", "replace it by --force"),
    ("predict few photos --out file/a.csv", "cannot be written"),
    ("distill run photos", "is a run without a classifier"),
    ("distill few nowhere", NOTHING),
    ("distill few photos --student resnet19", "did you mean resnet1"),
    ("distill few photos --from-run nowhere", "nowhere/encoder.json"),
    ("distill few photos --from-run run --student resnet18", "leave out one of the two"),
    ("distill few photos --device warp", "--device 'warp'"),
    ("distill few photos --views nope", "--views 'nope' is none of"),
    ("label-plan run nowhere", NOTHING),
    ("label-plan run photos --by uncertainty", "--by uncertainty asks a classifier"),
    ("label-plan run photos --out file", "replace it by --force"),
    ("label-plan run photos --labels nowhere.csv", "there is no 'nowhere.csv'"),
    # views and doctor
    ("views nowhere", NOTHING),
    ("views photos --out file", "replace it by --force"),
    ("views photos --views nope", "--views 'nope' is none of"),
    ("views photos --method foo", "there is no method 'foo'"),
    ("doctor nowhere", NOTHING),
    ("doctor run", "is a run, and DATA to look at are wanted"),
    ("doctor photos --encoder resnet19", "did you mean resnet1"),
    (f"doctor table.csv {COLUMN}", "it has 'a', 'b', 'kind'"),
]


@pytest.mark.parametrize(("call", "told"), EARLY, ids=[call for call, _ in EARLY])
@pytest.mark.usefixtures("nothing_is_opened")
def test_what_is_wrong_is_said_before_anything_is_opened(
    call: str, told: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    before = sorted(place.rglob("*"))
    status = main(call.split())
    err = capsys.readouterr().err
    assert told in err
    assert (status, err.count("\n")) == (2, 1)
    assert sorted(place.rglob("*")) == before, "nothing is left"


@pytest.mark.usefixtures("nothing_is_opened")
def test_what_opens_the_data_would_have_been_noticed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("NEARFAR_TRACEBACK", "1")
    for call in (
        "train simclr photos --encoder conv4",
        "train simclr table.csv",
        "evaluate run sorted --labels folders",
    ):
        with pytest.raises(AssertionError, match="it was opened"):
            main([*call.split(), *(("--out", "new") if "train" in call else ())])
