"""CIFAR-10: from archives, folders and the network; small files stand in for the real ones."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.data import cifar10 as loader
from workbench.data.datasets import load_dataset

BATCHES = tuple(loader.MEMBER_MD5)


@pytest.fixture(scope="module")
def members():
    """Return six files of 10 images each."""
    generator = np.random.default_rng(5)
    files = {}
    for name in BATCHES:
        records = generator.integers(0, 256, size=(10, 3073), dtype=np.uint8)
        records[:, 0] = generator.permutation(10)
        files[name] = records.tobytes()
    return files


@pytest.fixture
def small(monkeypatch, members):
    """Let the loader take the small files for the official ones."""
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in members.items()}
    monkeypatch.setattr(loader, "MEMBER_MD5", md5)
    monkeypatch.setattr(loader, "_IMAGES", 10)


@pytest.fixture
def write(tmp_path, make_tar, members):
    def write(name: str, mode: str = "w:gz", files=None):
        entries = [("cifar-10-batches-bin/", None), ("cifar-10-batches-bin/readme.html", b"x")]
        # In an order that is not that of the batches.
        for batch, content in reversed((files or members).items()):
            entries.append((f"cifar-10-batches-bin/{batch}", content))
        return make_tar(tmp_path / name, entries, mode)

    return write


def extract(folder, members):
    folder.mkdir(parents=True)
    for name, content in members.items():
        (folder / name).write_bytes(content)
    return folder


def check(dataset, members) -> None:
    assert dataset.name == "cifar10"
    for number, name in enumerate(BATCHES):
        for row in range(10):
            record = members[name][row * 3073 : (row + 1) * 3073]
            assert dataset.labels[number * 10 + row] == record[0]
            assert dataset.source.pixels[number * 10 + row].tobytes() == record[1:]
    assert dataset.official_test_indices.tolist() == list(range(50, 60))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("name", "mode"),
    [("cifar-10-binary.tar.gz", "w:gz"), ("cifar-10-binary.tar.xz", "w:xz"), ("own.tar", "w")],
)
def test_from_an_archive(write, members, name, mode):
    path = write(name, mode)
    check(load_dataset("cifar10", root=path), members)
    check(load_dataset("cifar10", str(path)), members)
    if name != "own.tar":
        check(load_dataset("cifar10", root=path.parent), members)
    assert [entry.name for entry in path.parent.iterdir()] == [name]


@pytest.mark.usefixtures("small")
def test_from_an_extracted_folder(tmp_path, members):
    folder = extract(tmp_path / "cifar-10-batches-bin", members)
    check(load_dataset("cifar10", root=folder), members)
    check(load_dataset("cifar10", root=tmp_path), members)
    (folder / "test_batch.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"test_batch\.bin"):
        load_dataset("cifar10", root=tmp_path)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("variable", ["WORKBENCH_DATA", "WORKBENCH_CACHE"])
def test_found_without_being_named(monkeypatch, write, members, variable):
    path = write("cifar-10-binary.tar.gz")
    monkeypatch.setenv(variable, str(path.parent))
    check(load_dataset("cifar10"), members)


@pytest.mark.usefixtures("small")
def test_the_official_split_stays_available(write):
    path = write("cifar-10-binary.tar.gz")
    assert load_dataset("cifar10", path).client_indices.tolist() == list(range(60))
    train = load_dataset("cifar10", path, clients="train")
    assert train.client_indices.tolist() == list(range(50))
    assert train.official_test_indices.tolist() == list(range(50, 60))
    with pytest.raises(ValueError, match="clients is 'test'"):
        load_dataset("cifar10", path, clients="test")


@pytest.mark.usefixtures("small")
def test_a_member_that_differs_is_named(write, members):
    changed = {**members, "data_batch_3.bin": members["data_batch_3.bin"][:-1] + b"\0"}
    with pytest.raises(ValueError, match=r"own\.tar: data_batch_3\.bin has MD5"):
        load_dataset("cifar10", write("own.tar", "w", changed))
    short = {**members, "data_batch_3.bin": b""}
    with pytest.raises(ValueError, match=r"own\.tar: data_batch_3\.bin has MD5"):
        load_dataset("cifar10", write("own.tar", "w", short))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("mode", ["w:gz", "w:xz"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(part=st.floats(0, 1))
def test_a_truncated_archive_is_named_with_the_member(write, members, mode, part):
    path = write("own.tar", mode)
    content = path.read_bytes()
    path.write_bytes(content[: int(part * (len(content) - 1))])
    try:
        dataset = load_dataset("cifar10", path)
    except ValueError as error:
        assert "own.tar" in str(error)  # noqa: PT017  # either outcome is right
    else:
        check(dataset, members)


@pytest.mark.usefixtures("small")
def test_the_message_for_a_truncated_archive(write):
    path = write("own.tar", "w:gz")
    path.write_bytes(path.read_bytes()[:60_000])
    with pytest.raises(ValueError, match=r"own\.tar is damaged or cut off at cifar.*batch.*fetch"):
        load_dataset("cifar10", path)


def test_something_else_than_cifar(tmp_path, make_tar):
    with pytest.raises(FileNotFoundError, match=r"root .*nowhere does not exist"):
        load_dataset("cifar10", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no CIFAR-10 in .*cifar-10-binary\.tar\.gz"):
        load_dataset("cifar10", tmp_path)
    (tmp_path / "note.txt").write_text("not an archive")
    with pytest.raises(ValueError, match=r"note\.txt is damaged or .* its beginning \(.*\); fetch"):
        load_dataset("cifar10", tmp_path / "note.txt")
    python_version = make_tar(tmp_path / "p.tar", [("cifar-10-batches-py/data_batch_1", b"")])
    with pytest.raises(ValueError, match=r"has no data_batch_1\.bin, data_batch_2\.bin"):
        load_dataset("cifar10", python_version)


@contextlib.contextmanager
def web_server(folder):
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.usefixtures("small")
def test_download_with_progress_and_only_once(monkeypatch, tmp_path, write, members, capsys):
    path = write("cifar-10-binary.tar.gz")
    cache = tmp_path / "cache" / "deep"
    monkeypatch.setenv("WORKBENCH_CACHE", str(cache))
    monkeypatch.setattr(loader, "URL_MD5", hashlib.md5(path.read_bytes()).hexdigest())
    with web_server(tmp_path) as address:
        monkeypatch.setattr(loader, "URL", f"{address}/{path.name}")
        check(load_dataset("cifar10"), members)
    assert "Download cifar-10-binary.tar.gz: 100%" in capsys.readouterr().err
    assert [entry.name for entry in cache.iterdir()] == ["cifar-10-binary.tar.gz"]
    # The server is gone; the copy in the cache is enough.
    check(load_dataset("cifar10"), members)


def test_a_download_that_is_not_the_official_file_leaves_nothing(monkeypatch, tmp_path, write):
    path = write("cifar-10-binary.tar.gz")
    cache = tmp_path / "cache"
    monkeypatch.setenv("WORKBENCH_CACHE", str(cache))
    with web_server(tmp_path) as address:
        monkeypatch.setattr(loader, "URL", f"{address}/{path.name}")
        with pytest.raises(ValueError, match="c32a1d4ab5d03f1284b67883e8d87530 is expected"):
            load_dataset("cifar10")
        monkeypatch.setattr(loader, "URL", f"{address}/missing")
        with pytest.raises(OSError, match="WORKBENCH_DATA"):
            load_dataset("cifar10")
    with pytest.raises(OSError, match=r"cannot be reached.*WORKBENCH_DATA"):
        load_dataset("cifar10")
    assert list(cache.iterdir()) == []


@pytest.mark.data
def test_the_real_images(cifar10):
    dataset = cifar10
    assert len(dataset) == 60_000
    assert dataset.input_shape == (3, 32, 32)
    assert np.bincount(dataset.labels).tolist() == [6000] * 10
    assert np.bincount(dataset.labels[dataset.official_test_indices]).tolist() == [1000] * 10
    # A tenth of the training images is enough to see that mean and deviation are theirs.
    images = dataset.images(np.arange(0, 50_000, 10))
    assert images.mean(dim=(0, 2, 3)).abs().max() < 0.02
    assert (images.std(dim=(0, 2, 3)) - 1).abs().max() < 0.02
