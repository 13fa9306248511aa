from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nearfar.machine import free_memory
from nearfar.modalities.image.samples import open_images

from .images import encoded, folder, noise, smooth


def broken(root: Path, *, good: int) -> Path:
    """A folder of good images and five that are bad in five ways."""
    folder(root, *(f"good{i}.png" for i in range(good)))
    (root / "cut.jpg").write_bytes(encoded(noise(64, 64), "JPEG")[:-700])
    (root / "cut.png").write_bytes(encoded(noise(64, 64))[:-700])
    (root / "empty.jpg").write_bytes(b"")
    (root / "page.gif").write_text("<html>Not found</html>")
    (root / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    return root


def test_bad_files_are_skipped_with_a_reason(tmp_path):
    images = open_images(broken(tmp_path, good=95), max_bad=0.05)
    assert len(images) == 95
    assert images.names == [f"good{i}.png" for i in range(95)]
    reasons = dict(images.skipped)
    assert set(reasons) == {"cut.jpg", "cut.png", "empty.jpg", "page.gif", "photo.heic"}
    assert "truncated" in reasons["cut.jpg"]
    assert reasons["page.gif"].startswith("no image of a format that is read here (JPEG, PNG,")
    assert reasons["empty.jpg"] == "the file is empty"
    for i in (0, 50, 94):
        wanted = np.asarray(noise(seed=i)).transpose(2, 0, 1)
        assert np.array_equal(images.pixels(torch.tensor([i]))[0], wanted)
        assert np.array_equal(np.asarray(images.original(i)).transpose(2, 0, 1), wanted)


def test_too_many_bad_files_are_an_error_that_names_them_and_the_flag(tmp_path):
    broken(tmp_path, good=45)
    with pytest.raises(ValueError, match=r"(?s)5 of 50 images of .*10.0%.*5.0%.*'cut.jpg'.*--max-bad 0.1\.") as error:
        open_images(tmp_path)
    assert "photo.heic" not in str(error.value)  # the first few only
    assert len(open_images(tmp_path, max_bad=0.1)) == 45


def test_the_share_of_bad_files_counts_images_only(tmp_path):
    broken(tmp_path, good=45)
    for i in range(100):
        (tmp_path / f"{i}.txt").write_text("no image")
    with pytest.raises(ValueError, match="5 of 50 images"):
        open_images(tmp_path)


def test_no_good_file_is_an_error_whatever_is_allowed(tmp_path):
    with pytest.raises(ValueError, match=r"None of the 5 images of .* can be decoded \('cut.jpg'"):
        open_images(broken(tmp_path, good=0), max_bad=1)


def test_a_file_that_may_not_be_read_is_bad(tmp_path, monkeypatch):
    folder(tmp_path, "a.png", "closed.png")
    opened = Path.open

    def refuse(self, *args, **kwargs):
        if self.name == "closed.png":
            raise PermissionError(13, "Permission denied")
        return opened(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    assert open_images(tmp_path, max_bad=0.5).skipped == [("closed.png", "Permission denied")]


@pytest.mark.parametrize("memory", [None, 0])
def test_labels_stay_with_their_images_when_files_are_skipped(tmp_path, memory):
    broken(tmp_path / "a", good=20)
    folder(tmp_path / "b", *(f"{i}.png" for i in range(5)))
    images = open_images(tmp_path, labels="folders", max_bad=0.5, memory=memory)
    assert images.classes == ["a", "b"]
    assert [images.classes[c] for c in images.label] == [name[0] for name in images.names]
    assert len(images) == len(images.aspect) == len(images.split) == len(images.group) == 25


def test_decoding_on_demand_gives_what_the_cache_gives(tmp_path):
    for i in range(20):
        smooth(20 + i, 60 - i).save(tmp_path / f"{i}.jpg")
    (tmp_path / "3.jpg").write_bytes(b"")
    cache, demand = (open_images(tmp_path, size=12, memory=memory, workers=3) for memory in (None, 0))
    assert cache.cached
    assert not demand.cached
    assert cache.names == demand.names
    assert cache.side == demand.side == 24
    assert torch.equal(cache.aspect, demand.aspect)
    index = torch.tensor([5, 0, 18, 5])
    assert torch.equal(cache.pixels(index), demand.pixels(index))
    assert np.array_equal(np.asarray(cache.original(3)), np.asarray(demand.original(3)))
    assert "decoded batch by batch" in demand.notes[-1]


def test_a_file_that_is_bad_is_found_even_when_decoding_on_demand(tmp_path):
    images = open_images(broken(tmp_path, good=95), memory=0)
    assert len(images.skipped) == 5
    assert images.pixels(torch.arange(95)).shape == (95, 3, 12, 12)


def test_the_side_is_the_median_short_side_up_to_twice_the_view(tmp_path):
    for i, (height, width) in enumerate([(10, 50), (30, 20), (90, 40)]):
        noise(height, width).save(tmp_path / f"{i}.png")
    assert open_images(tmp_path).side == 20
    assert open_images(tmp_path, size=8).side == 16
    assert open_images(tmp_path, size=8, side=31).side == 31
    assert open_images(tmp_path).aspect.tolist() == pytest.approx([5, 2 / 3, 4 / 9])


def test_channels_are_one_only_where_all_images_are_gray(tmp_path):
    for i, mode in enumerate(["L", "1", "LA"]):
        noise(mode="L").convert(mode).save(tmp_path / f"{i}.png")
    gray = open_images(tmp_path)
    assert gray.channels == 1
    assert gray.original(2).mode in ("L", "RGB")
    noise().save(tmp_path / "color.png")
    mixed = open_images(tmp_path)
    assert mixed.channels == 3
    assert mixed.notes == ["3 of 4 images are gray; they are read as color, like the others."]
    assert torch.equal(mixed.pixels(torch.tensor([0])), gray.pixels(torch.tensor([0])).expand(1, 3, -1, -1))


@pytest.mark.parametrize("memory", [None, 0])
def test_gray_and_color_stand_for_each_other(tmp_path, memory):
    for i in range(3):
        noise(20, 20).save(tmp_path / f"{i}.png")
    color, index = open_images(tmp_path, side=20, memory=memory), torch.tensor([2, 0])
    gray = color.of_channels(1)
    wanted = [np.asarray(Image.open(tmp_path / f"{i}.png").convert("L")) for i in (2, 0)]
    assert np.array_equal(gray.pixels(index)[:, 0].numpy(), np.stack(wanted))
    assert torch.equal(gray.of_channels(1).pixels(index), gray.pixels(index))
    assert gray.digest == color.digest
    assert gray.notes[-1] == "The 3 images are in color; they are read as gray, as the encoder takes them."
    for i, pixels in enumerate(wanted):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    (tmp_path / "2.png").unlink()
    back = open_images(tmp_path, side=20, memory=memory).of_channels(3)
    assert back.channels == 3
    assert np.array_equal(back.pixels(torch.tensor([0, 1])).numpy(), np.stack(wanted)[:, None].repeat(3, 1))
    with pytest.raises(ValueError, match=r"2 channel\(s\) are wanted, and these have 3"):
        color.of_channels(2)


def test_a_subset_shares_the_cache_and_keeps_the_classes(tmp_path):
    images = open_images(folder(tmp_path, "a/1.png", "a/2.png", "b/1.png", "c/1.png"), labels="folders")
    part = images.subset([3, 1])
    assert part.names == ["c/1.png", "a/2.png"]
    assert (part.classes, part.label.tolist()) == (["a", "b", "c"], [2, 0])
    assert part.store is images.store
    assert torch.equal(part.pixels(torch.tensor([1, 0])), images.pixels(torch.tensor([1, 3])))
    nested = part.subset(torch.tensor([1]))
    assert torch.equal(nested.pixels(torch.tensor([0])), images.pixels(torch.tensor([1])))
    assert np.array_equal(np.asarray(nested.original(0)), np.asarray(images.original(1)))
    assert len(images.subset(torch.tensor([], dtype=torch.int64))) == 0


def test_moving_takes_only_the_rows_of_a_subset(tmp_path):
    images = open_images(folder(tmp_path, *(f"{i}.png" for i in range(5))))
    assert images.to("cpu") is images
    moved = images.subset([4, 2]).to("meta")
    assert moved.store.squares.shape == (2, 3, 12, 12)
    assert moved.store.squares.is_meta
    assert moved.store.source_rows.tolist() == [4, 2]
    assert np.array_equal(np.asarray(moved.store.original(0)), np.asarray(images.original(4)))
    demand = open_images(tmp_path, memory=0)
    assert demand.to("meta") is demand


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_cache_moves_to_the_gpu_where_it_fits(tmp_path):
    images = open_images(folder(tmp_path, *(f"{i}.png" for i in range(5))))
    assert images.to("cuda", share=0) is images
    moved = images.subset([4, 2]).to("cuda:0")
    pixels = moved.pixels(torch.tensor([1, 0]))
    assert pixels.is_cuda
    assert torch.equal(pixels.cpu(), images.pixels(torch.tensor([2, 4])))


def test_progress_is_told_in_order_up_to_all(tmp_path):
    told = []
    open_images(folder(tmp_path, *(f"{i}.png" for i in range(30))), workers=2, progress=lambda *a: told.append(a))
    done = [a for a, _ in told]
    assert done == sorted(done)
    assert done[-1] == 30
    assert {n for _, n in told} == {30}


def test_opening_leaks_no_warning(tmp_path):
    smooth(100, 100).save(tmp_path / "exif.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff")
    palette = noise(mode="L").convert("P")
    palette.save(tmp_path / "palette.png", transparency=bytes(range(256)))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        images = open_images(tmp_path, memory=0)
        images.pixels(torch.arange(2))
        images.original(0)
    assert [str(warning.message) for warning in seen] == []
    assert not images.skipped


def test_memory_is_shared_between_the_processes_of_a_machine(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    alone = free_memory()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert 0 < free_memory() < alone / 4


def test_labels_need_a_folder_to_come_from_folders():
    with pytest.raises(ValueError, match="--labels folders wants a folder of images"):
        open_images(np.zeros((2, 8, 8), np.uint8), labels="folders")


def test_a_image_that_vanishes_is_an_error(tmp_path):
    images = open_images(folder(tmp_path, "a.png"), memory=0)
    (tmp_path / "a.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.png"):
        images.pixels(torch.tensor([0]))


def test_the_same_folder_opens_the_same_way_twice(tmp_path):
    folder(tmp_path, *(f"{i % 3}/{i}.png" for i in range(20)))
    one, two = open_images(tmp_path, workers=1), open_images(tmp_path, workers=4)
    assert one.names == two.names
    assert torch.equal(one.pixels(torch.arange(20)), two.pixels(torch.arange(20)))


def test_the_full_image_is_upright_on_white(tmp_path):
    image = noise(6, 9, mode="RGBA")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.png", exif=exif)
    original = open_images(tmp_path, side=4).original(0)
    assert original.size == (6, 9)
    assert original.mode == "RGB"


def test_photographs(shared_data, tmp_path):
    import tarfile

    with tarfile.open(shared_data / "grocery_photos.tar") as archive:
        members = archive.getmembers()
        table = [m for m in members if m.name.endswith("labels.csv")]
        some = [m for m in members if m.name.endswith("_002.jpg")]
        archive.extractall(tmp_path, [*some, *table], filter="data")
    root = tmp_path / "grocery_photos"
    fine = open_images(root, labels="folders", size=32)
    coarse = open_images(root, labels=root / "labels.csv", label_column="coarse_name", size=32)
    assert fine.side == 64
    assert len(fine) == len(some) == len(coarse)
    assert set(fine.split) == {"train", "test"}
    assert fine.split == coarse.split
    assert len(coarse.classes) < len(fine.classes)
    assert "rows of" in coarse.notes[-1]


def deep(root: Path, top: int, *, color: bool = False) -> np.ndarray:
    """Two images of 16 bits whose highest values are `top` and half of it; the first of them."""
    shape = (8, 8, 3) if color else (8, 8)
    values = np.random.default_rng(0).integers(0, top + 1, shape, dtype=np.uint16)
    values[0, 0] = top
    for name, image in (("a", values), ("b", values // 2)):
        if color:
            cv2 = pytest.importorskip("cv2", reason="the extra 'fast' is not installed")
            cv2.imwrite(str(root / f"{name}.png"), image[:, :, ::-1])
        else:
            Image.fromarray(image).save(root / f"{name}.png")
    return values


@pytest.mark.parametrize(
    ("white", "scale", "said"),
    [
        (None, 65535, "0 to 65,535 (the range of their type) to 0 to 255. None is above about 4,112"),
        (4095, 4095, "0 to 4,095 (as asked for) to 0 to 255."),
        ("measured", 4000, "0 to 4,000 (the highest value there is) to 0 to 255."),
        (1000, 1000, "0 to 1,000 (as asked for) to 0 to 255."),
    ],
)
def test_sixteen_bits_are_scaled_by_their_type_or_as_asked(tmp_path, white, scale, said):
    values = deep(tmp_path, 4000)
    images = open_images(tmp_path, white=white)
    wanted = np.round(np.minimum(values / scale, 1) * 255)
    assert np.abs(images.pixels(torch.tensor([0]))[0, 0].numpy() - wanted).max() <= 1
    assert np.array_equal(np.asarray(images.original(0)), images.pixels(torch.tensor([0]))[0, 0])
    assert images.notes[0].startswith("2 of 2 images have 16 bits a channel; they are scaled to 8, " + said)
    demand = open_images(tmp_path, white=white, memory=0)
    assert torch.equal(demand.pixels(torch.arange(2)), images.pixels(torch.arange(2)))


@pytest.mark.parametrize(("white", "scale"), [(None, 65535), ("measured", 60000)])
def test_sixteen_bits_of_color(tmp_path, white, scale):
    values = deep(tmp_path, 60000, color=True)
    images = open_images(tmp_path, white=white)
    assert images.channels == 3
    found = images.pixels(torch.tensor([0]))[0].numpy().transpose(1, 2, 0).astype(int)
    assert np.abs(found - values / scale * 255).max() <= 1
    assert "2 of 2 images have 16 bits a channel" in images.notes[0]
    assert "None is above" not in images.notes[0]


@pytest.mark.parametrize("first", [False, True])
def test_a_folder_of_arrays(tmp_path, first):
    values = np.random.default_rng(0).integers(0, 256, (3, 10, 16, 5), dtype=np.uint8)
    for i, image in enumerate(values):
        np.save(tmp_path / f"{i}.npy", image.transpose(2, 0, 1) if first else image)
    np.save(tmp_path / "3.npy", (values[0] / 255).astype(np.float32))
    images = open_images(tmp_path, side=10)
    assert (images.channels, len(images)) == (5, 4)
    assert images.aspect.tolist() == pytest.approx([1.6] * 4)
    assert torch.equal(*images.pixels(torch.tensor([0, 3])))
    assert np.array_equal(np.asarray(images.original(1)), values[1, :, :, :3])


def test_arrays_beside_images_are_no_images(tmp_path):
    np.save(folder(tmp_path, "a.png", "b.png") / "labels.npy", np.arange(2))
    images = open_images(tmp_path)
    assert images.names == ["a.png", "b.png"]
    assert images.notes == ["Ignored 1 file that is no image (labels.npy)."]


def test_arrays_that_are_no_images_are_bad(tmp_path):
    for i, array in enumerate([np.zeros(5), np.zeros((2, 3, 4, 5)), np.array([["a", "b"]]), np.zeros((0, 3))]):
        np.save(tmp_path / f"{i}.npy", array)
    np.save(tmp_path / "4.npy", np.zeros((4, 4), np.uint8))
    images = open_images(tmp_path, max_bad=0.9)
    assert images.names == ["4.npy"]
    assert all("wanted: numbers, H x W, H x W x C or C x H x W" in why for _, why in images.skipped)


def test_a_mixture_of_channel_counts_is_an_error_that_names_both(tmp_path):
    for i, channels in enumerate([5, 5, 3]):
        np.save(tmp_path / f"{i}.npy", np.zeros((6, 6, channels), np.uint8))
    with pytest.raises(
        ValueError, match=r"numbers of channels: 2 of 5 \('0\.npy'\), 1 of 3 \('2\.npy'\).*folder of its"
    ):
        open_images(tmp_path)


def test_images_in_a_folder_of_that_name_have_no_label(tmp_path):
    names = ["cat/1.png", "dog/1.png", "loose.png", *(f"Unlabeled/{i}.png" for i in range(3)), "unlabeled/x/4.png"]
    images = open_images(folder(tmp_path, *names), labels="folders")
    assert images.classes == ["cat", "dog"]
    known = {name for name, label in zip(images.names, images.label.tolist(), strict=True) if label >= 0}
    assert known == {"cat/1.png", "dog/1.png"}
    assert images.notes == [
        "1 image is in no class folder: no label.",
        "3 images are in the folder 'Unlabeled': no label.",
        "1 image is in the folder 'unlabeled': no label.",
    ]
