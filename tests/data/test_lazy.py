"""CelebA and image folders: lazily loaded, any subset, clear errors."""

from __future__ import annotations

import gc
import io
import pickle
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from workbench.data import celeba, encoded, partition
from workbench.data.archives import open_store
from workbench.data.datasets import load_dataset
from workbench.fleet import Fleet

COLUMNS = ["Bald", "Male", "Mouth_Slightly_Open", "Smiling"]


def jpeg(colour, size=(89, 109), kind="JPEG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, kind, quality=95)
    return file.getvalue()


def annotation_files(count: int) -> dict[str, bytes]:
    """Image k has the identity k // 3, and the bits of k % 8 as (Smiling, Male, Mouth...)."""
    lines = [str(count), " ".join(COLUMNS) + " "]
    identities = []
    for k in range(count):
        smiling, male, mouth = ("1" if k % 8 & bit else "-1" for bit in (4, 2, 1))
        lines.append(f"{k + 1:06}.jpg  -1 {male:>2} {mouth:>2} {smiling:>2}")
        identities.append(f"{k + 1:06}.jpg {k // 3}")
    return {
        celeba.ATTRIBUTE_FILE: "\r\n".join(lines).encode() + b"\r\n",
        celeba.IDENTITY_FILE: "\r\n".join(identities).encode() + b"\r\n",
    }


@pytest.fixture
def faces(tmp_path, make_tar):
    """Write annotations of 24 images and a tar with every other image."""
    make_tar(tmp_path / "celeba-annotations.tar.xz", annotation_files(24).items(), "w:xz")
    images = [(f"img/{k + 1:06}.jpg", jpeg((10 * k, 0, 0))) for k in range(0, 24, 2)]
    make_tar(tmp_path / "img_align_celeba.tar", images)
    return tmp_path


def test_a_subset_of_the_images(faces):
    dataset = load_dataset("celeba", faces, size=16)
    assert dataset.input_shape == (3, 16, 16)
    assert dataset.labels.tolist() == [k % 8 for k in range(0, 24, 2)]
    assert dataset.identity.tolist() == [k // 3 for k in range(0, 24, 2)]
    assert dataset.class_names == (
        "none",
        "Mouth_Slightly_Open",
        "Male",
        "Male+Mouth_Slightly_Open",
        "Smiling",
        "Smiling+Mouth_Slightly_Open",
        "Smiling+Male",
        "Smiling+Male+Mouth_Slightly_Open",
    )
    pixels = dataset.source.read(np.array([11, 0, 5]))
    np.testing.assert_allclose(pixels[:, 0].mean(axis=(1, 2)), [220, 0, 100], atol=3)
    assert pixels[:, 1:].mean() < 3


def test_annotations_and_images_in_folders(tmp_path):
    (tmp_path / "Anno").mkdir()
    for name, content in annotation_files(4).items():
        (tmp_path / "Anno" / name).write_bytes(content)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "000003.jpg").write_bytes(jpeg((0, 0, 0)))
    dataset = load_dataset("celeba", tmp_path, images=tmp_path / "elsewhere", attributes=["Male"])
    assert dataset.labels.tolist() == [1]
    assert dataset.class_names == ("none", "Male")


def test_what_does_not_fit_together_is_refused(faces, make_tar):
    with pytest.raises(ValueError, match=r"attributes \['Tall'\] are not in CelebA; .*Bald"):
        load_dataset("celeba", faces, attributes=["Tall"])
    with pytest.raises(ValueError, match="attributes is empty"):
        load_dataset("celeba", faces, attributes=[])
    stranger = make_tar(faces / "other.tar", [("img/000099.jpg", b"")])
    with pytest.raises(ValueError, match=r"nothing is known of 1 images, 000099\.jpg"):
        load_dataset("celeba", faces, images=stranger)
    empty = make_tar(faces / "empty.tar", [("img/", None)])
    with pytest.raises(ValueError, match="no image of CelebA"):
        load_dataset("celeba", faces, images=empty)
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        load_dataset("celeba", faces, images=faces / "nowhere")
    (faces / "img_align_celeba.tar").unlink()
    with pytest.raises(FileNotFoundError, match="no CelebA images"):
        load_dataset("celeba", faces)
    (faces / "celeba-annotations.tar.xz").unlink()
    with pytest.raises(FileNotFoundError, match=r"list_attr_celeba\.txt"):
        load_dataset("celeba", faces)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (celeba.ATTRIBUTE_FILE, lambda old: old[: len(old) * 2 // 3], "list_attr_celeba.txt"),
        (celeba.ATTRIBUTE_FILE, lambda old: old.replace(b"24\r", b"25\r", 1), "announces 25"),
        (celeba.ATTRIBUTE_FILE, lambda old: old.replace(b"24\r", b"x\r", 1), "first line"),
        (celeba.ATTRIBUTE_FILE, lambda _: b"24", "not in CelebA"),
        (celeba.ATTRIBUTE_FILE, lambda old: old.replace(b" -1", b"  7"), "must be 1 or -1"),
        (celeba.ATTRIBUTE_FILE, lambda old: old.replace(b" -1", b" no"), "damaged"),
        (celeba.IDENTITY_FILE, lambda old: old[:100], "identity_CelebA.txt is damaged"),
        (celeba.IDENTITY_FILE, lambda old: old[:13], "do not name the same images"),
        (celeba.IDENTITY_FILE, lambda old: old.replace(b" 7", b" x"), "damaged"),
        (celeba.IDENTITY_FILE, lambda _: b"", "identity_CelebA.txt"),
    ],
)
def test_damaged_annotations_are_named(tmp_path, file, change, message):
    files = annotation_files(24)
    files[file] = change(files[file])
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        celeba.read_annotations(tmp_path)


def test_a_truncated_annotation_archive_is_named(faces):
    path = faces / "celeba-annotations.tar.xz"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match=r"celeba-annotations\.tar\.xz is damaged"):
        load_dataset("celeba", faces)


@pytest.fixture
def objects(tmp_path, make_tar):
    files = [
        (f"photos/{part}/{name}/{k}.{ending}", jpeg(colour, (40, 30), kind))
        for part, count in (("train", 3), ("val", 1))
        for name, colour in (("zebra", (0, 0, 200)), ("ant", (200, 0, 0)))
        for k, (ending, kind) in enumerate([("JPEG", "JPEG"), ("png", "PNG"), ("jpg", "JPEG")])
        if k < count
    ]
    return make_tar(tmp_path / "photos.tar", [*files, ("photos/readme.txt", b"x")])


def test_an_image_folder(objects):
    dataset = load_dataset("image_folder", objects, size=8)
    assert dataset.name == "photos"
    assert dataset.class_names == ("ant", "zebra")
    assert len(dataset) == 8
    names = dataset.source.names
    assert [dataset.class_names[label] for label in dataset.labels] == [
        name.split("/")[2] for name in names
    ]
    assert [names[row].split("/")[1] for row in dataset.official_test_indices] == ["val", "val"]
    assert len(dataset.client_indices) == 8
    train = load_dataset("image_folder", objects, clients="train")
    assert [train.source.names[row].split("/")[1] for row in train.client_indices] == ["train"] * 6
    for label, channel in ((0, 0), (1, 2)):
        pixels = dataset.source.read(np.flatnonzero(dataset.labels == label))
        assert abs(pixels[:, channel].mean() - 200) < 5
        assert pixels[:, 2 - channel].mean() < 5


def test_a_plain_folder_and_one_named_by_workbench_data(tmp_path, monkeypatch):
    for name in ("b", "a"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        (tmp_path / "pictures" / name / "1.png").write_bytes(jpeg((9, 9, 9), (8, 8), "PNG"))
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path))
    dataset = load_dataset("image_folder", "pictures", size=8)
    assert dataset.class_names == ("a", "b")
    assert (dataset.source.read(np.array([0, 1])) == 9).all()
    with pytest.raises(ValueError, match="has no folder train"):
        load_dataset("image_folder", "pictures", clients="train")


def test_wrong_image_folders(tmp_path):
    with pytest.raises(ValueError, match="root is None"):
        load_dataset("image_folder")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_dataset("image_folder", "nowhere")
    with pytest.raises(ValueError, match="no images in folders"):
        load_dataset("image_folder", tmp_path)
    (tmp_path / "1.png").write_bytes(b"")
    with pytest.raises(ValueError, match="no images in folders"):
        load_dataset("image_folder", tmp_path)


def source_of(tmp_path, files, **options):
    (tmp_path / "x").mkdir()
    for name, content in files.items():
        (tmp_path / "x" / name).write_bytes(content)
    return encoded.EncodedSource(
        open_store(tmp_path / "x"), sorted(files), **{"size": 8, "memory_bytes": 0, **options}
    )


def test_the_central_square_is_taken(tmp_path):
    image = Image.new("RGB", (30, 10), (255, 255, 255))
    image.paste((0, 0, 0), (10, 0, 20, 10))
    file = io.BytesIO()
    image.save(file, "PNG")
    source = source_of(tmp_path, {"a.png": file.getvalue()})
    pixels = source.read(np.array([0]))
    # Scaling looks one pixel beyond the edge.
    assert pixels[..., 1:-1].max() == 0
    assert pixels.max() < 40


@pytest.mark.parametrize(
    "content",
    [b"", b"text", jpeg((1, 1, 1))[:200], b"GIF89a" + b"\0" * 20, jpeg((1, 1, 1), kind="PNG")[:60]],
)
def test_an_image_that_cannot_be_decoded_is_named(tmp_path, content):
    source = source_of(tmp_path, {"a.jpg": jpeg((1, 1, 1)), "b.jpg": content})
    assert source.read(np.array([0])).shape == (1, 3, 8, 8)
    with pytest.raises(ValueError, match=r"image b\.jpg can't be decoded"):
        source.read(np.array([0, 1]))


@pytest.mark.parametrize("size", [9_000, 20_000])
def test_a_decompression_bomb_is_refused(tmp_path, size):
    file = io.BytesIO()
    Image.new("1", (size, size)).save(file, "PNG")
    source = source_of(tmp_path, {"a.png": file.getvalue()})
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"a\.png can't be decoded"):
        source.read(np.array([0]))
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_decoded_images_are_kept_up_to_the_bound(tmp_path):
    files = {f"{k}.png": jpeg((k, k, k), kind="PNG") for k in range(10)}
    source = source_of(tmp_path, files, memory_bytes=4 * 3 * 8 * 8)
    reads = []
    read = source.store.read
    source.store.read = lambda name: reads.append(name) or read(name)
    for _ in range(3):
        pixels = source.read(np.arange(10))
        assert (pixels == np.arange(10).reshape(10, 1, 1, 1)).all()
    assert len(reads) == 10 + 6 + 6
    source.store.read = read
    copy = pickle.loads(pickle.dumps(source))
    assert (copy.read(np.arange(10)) == pixels).all()


@pytest.mark.parametrize(("option", "value"), [("size", 0), ("memory_bytes", -1)])
def test_wrong_options_are_refused(tmp_path, option, value):
    with pytest.raises(ValueError, match=f"{option} is {value}"):
        source_of(tmp_path, {}, **{option: value})


def test_the_fingerprint_sees_names_and_sizes(faces):
    one = load_dataset("celeba", faces, size=16)
    assert one.fingerprint() == load_dataset("celeba", faces, size=16).fingerprint()
    assert one.fingerprint() != load_dataset("celeba", faces, size=17).fingerprint()


@pytest.mark.data
def test_the_real_annotations_give_the_papers_clients(workbench_data):
    known = celeba.read_annotations(workbench_data)
    assert len(known.names) == 202_599
    parts = partition.by_identity(known.identity, min_samples=5)
    assert len(parts) == 9_343
    assert np.mean([len(part) for part in parts]) == pytest.approx(21.4, abs=0.05)
    derived = np.load(workbench_data / "celeba_labels.npz")
    expected = 4 * derived["smiling"] + 2 * derived["male"] + derived["mouth_slightly_open"]
    assert (known.labels == expected).all()
    assert (known.identity == derived["identity"]).all()


@pytest.mark.data
def test_the_real_faces_within_the_stated_memory(workbench_data):
    # What is imported or cached on first use is no memory of the data set.
    load_dataset("celeba", workbench_data, size=64, memory_mb=5)
    gc.collect()
    tracemalloc.start()
    dataset = load_dataset("celeba", workbench_data, size=64, memory_mb=5)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    for start in range(0, 2000, 100):
        dataset.source.read(np.arange(start, start + 100))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(dataset) == 10_000
    assert held < 10_000 * 1000
    # The bound, and one batch.
    assert peak - held < 5_000_000 + 3 * 100 * 3 * 64 * 64 + 500_000
    rows = np.arange(0, 10_000, 40)
    images = dataset.images(rows)
    assert images.mean(dim=(0, 2, 3)).abs().max() < 0.1
    assert (images.std(dim=(0, 2, 3)) - 1).abs().max() < 0.1
    fleet = Fleet.by_identity(
        dataset, min_samples=2, test_fraction=0.2, validation_fraction=0.2, seed=1
    )
    assert len(fleet) > 2000
    assert fleet.can_train.all()


@pytest.mark.data
def test_the_real_image_folder(workbench_data):
    dataset = load_dataset("image_folder", workbench_data / "imagenette-64px-2k.tar")
    assert np.bincount(dataset.labels).tolist() == [200] * 10
    assert len(dataset.official_test_indices) == 500
    assert dataset.class_names[0] == "n01440764"
    fleet = Fleet.iid(dataset, clients=100, validation_fraction=0.2, test_fraction=0.2)
    assert set(fleet.samples) == {20}
    assert set(fleet.train_samples) == {12}
