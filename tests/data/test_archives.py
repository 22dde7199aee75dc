"""Reading files inside archives, whole, truncated and damaged."""

from __future__ import annotations

import tarfile
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.data import archives

FILES = [
    ("top/", None),
    ("top/a.bin", b"a" * 700),
    ("top/deep/b.bin", bytes(range(256)) * 20),
    ("../c.bin", b""),
    ("top/" + "long" * 60 + "/d.bin", b"dd"),
]
WANTED = {"a.bin", "b.bin", "c.bin", "d.bin"}
CONTENT = {name.rsplit("/", 1)[-1]: content for name, content in FILES if content is not None}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_stream_reads_wanted_files_of_any_compression(tmp_path, make_tar, mode):
    path = make_tar(tmp_path / "x.tar", FILES, mode)
    assert dict(archives.stream(path, WANTED)) == CONTENT
    assert dict(archives.stream(path, ["b.bin"])) == {"b.bin": CONTENT["b.bin"]}
    # A path that leads out of the archive is only a name: nothing was written anywhere.
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.tar"]


def test_stream_names_what_is_missing(tmp_path, make_tar):
    path = make_tar(tmp_path / "x.tar", FILES)
    with pytest.raises(ValueError, match=r"x\.tar is damaged, or has no e\.bin"):
        dict(archives.stream(path, ["a.bin", "e.bin"]))


def test_links_are_no_files(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("a.bin")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(ValueError, match=r"has no a\.bin"):
        dict(archives.stream(path, ["a.bin"]))
    assert archives.open_store(path).names() == []


def test_a_header_that_claims_too_much_is_refused_before_memory_is_taken(tmp_path):
    path = tmp_path / "x.tar"
    member = tarfile.TarInfo("a.bin")
    member.size = 1 << 40
    path.write_bytes(member.tobuf() + b"\0" * 4096)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"x\.tar.*a\.bin.*claims 1099511627776"):
        dict(archives.stream(path, ["a.bin"]))
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
    with pytest.raises(ValueError, match=r"x\.tar.*a\.bin"):
        archives.open_store(path)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(data=st.data())
def test_a_truncated_archive_gives_the_truth_or_a_clear_error(tmp_path, make_tar, mode, data):
    path = make_tar(tmp_path / "x.tar", FILES, mode)
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    try:
        found = dict(archives.stream(path, WANTED))
    except ValueError as error:
        assert "x.tar" in str(error)  # noqa: PT017  # either outcome is right
    else:
        assert found == CONTENT


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_a_damaged_archive_never_gives_another_kind_of_error(tmp_path, make_tar, mode, data):
    path = make_tar(tmp_path / "x.tar", FILES, mode)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    for read in (lambda: dict(archives.stream(path, WANTED)), lambda: archives.open_store(path)):
        try:
            read()
        except ValueError as error:
            assert "x.tar" in str(error)  # noqa: PT017  # either outcome is right


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_a_store_reads_files_one_by_one(tmp_path, make_tar, kind):
    files = [(f"images/{k:03}.jpg", bytes([k]) * k) for k in range(100)]
    if kind == "tar":
        path = make_tar(tmp_path / "x.tar", [("images", None), *files])
    else:
        path = tmp_path / "x"
        (path / "images").mkdir(parents=True)
        for name, content in files:
            (path / name).write_bytes(content)
    store = archives.open_store(path)
    assert store.names() == [name for name, _ in files]
    for name, content in reversed(files):
        assert store.read(name) == content
        assert store.size(name) == len(content)


def test_a_compressed_store_says_what_to_do(tmp_path, make_tar):
    path = make_tar(tmp_path / "x.tar.xz", FILES, "w:xz")
    with pytest.raises(ValueError, match=r"x\.tar\.xz is compressed.*unpack it"):
        archives.open_store(path)


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path, make_tar):
    path = make_tar(tmp_path / "x.tar", [("a", b"1"), ("b", b"2"), ("c", b"3")])
    content = bytearray(path.read_bytes())
    content[1024] ^= 0xFF  # the first byte of the second header
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.tar is damaged after a"):
        archives.open_store(path)


def test_a_tar_cut_off_in_its_last_file_is_refused(tmp_path, make_tar):
    path = make_tar(tmp_path / "x.tar", [("a", b"1"), ("b", b"2" * 600)])
    path.write_bytes(path.read_bytes()[: 3 * 512 + 300])
    with pytest.raises(ValueError, match=r"x\.tar.*cut off at b"):
        archives.open_store(path)


def test_the_index_of_a_large_tar_is_small(tmp_path, make_tar):
    path = make_tar(tmp_path / "x.tar", ((f"images/{k:06}.jpg", b"") for k in range(5_000)))
    tracemalloc.start()
    store = archives.open_store(path)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(store.names()) == 5_000
    assert held / 5_000 < 400
    assert peak / 5_000 < 600


@pytest.mark.data
def test_rows_read_in_any_order_are_the_same(workbench_data):
    store = archives.open_store(workbench_data / "imagenette-64px-2k.tar")
    names = store.names()
    assert len(names) == 2000
    for row in np.random.default_rng(0).permutation(2000)[:50]:
        assert store.read(names[row])[:2] == b"\xff\xd8"
