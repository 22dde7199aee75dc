"""The Dataset class and the digits."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from workbench.data.dataset import Dataset
from workbench.data.datasets import dataset_names, load_dataset
from workbench.data.sources import ArraySource


def small(labels=(0, 1, 2, 1), **options) -> Dataset:
    pixels = np.arange(len(labels) * 2 * 3 * 3, dtype=np.uint8).reshape(-1, 2, 3, 3)
    arguments = {"mean": [0.25, 0.5], "std": [0.5, 0.25], **options}
    return Dataset("small", labels, ["a", "b", "c"], ArraySource(pixels), **arguments)


def test_images_are_normalised_on_access():
    dataset = small()
    images = dataset.images([3, 0])
    assert images.dtype == torch.float32
    assert images.shape == (2, 2, 3, 3)
    pixels = dataset.source.read(np.array([3, 0])) / 255
    expected = (pixels - np.array([0.25, 0.5]).reshape(2, 1, 1)) / np.array([0.5, 0.25]).reshape(
        2, 1, 1
    )
    np.testing.assert_allclose(images.numpy(), expected, rtol=1e-5, atol=1e-6)
    assert dataset.targets([3, 0]).tolist() == [1, 0]
    assert dataset.images([]).shape == (0, 2, 3, 3)


def test_pixels_are_not_changed_by_reading_them():
    dataset = small()
    before = dataset.source.pixels.copy()
    dataset.images(np.arange(4)).zero_()
    assert (dataset.source.pixels == before).all()


def test_a_subset_numbers_its_images_anew():
    dataset = small(identity=["x", "y", "z", "y"], official_test_indices=[3], server_indices=[0])
    subset = dataset.subset([3, 0, 2])
    assert subset.labels.tolist() == [1, 0, 2]
    assert subset.identity.tolist() == ["y", "x", "z"]
    assert subset.official_test_indices.tolist() == [0]
    assert subset.server_indices.tolist() == [1]
    assert subset.client_indices.tolist() == [0, 2]
    assert torch.equal(subset.images([0, 1, 2]), dataset.images([3, 0, 2]))
    assert subset.fingerprint() != dataset.fingerprint()
    assert torch.equal(subset.subset([2]).images([0]), dataset.images([2]))


def test_the_server_gets_its_share_of_each_class(digits):
    reserved = digits.reserve_for_server(0.1, seed=2)
    assert sorted([*reserved.server_indices, *reserved.client_indices]) == list(range(1797))
    assert len(reserved.server_indices) == 180
    shares = np.bincount(digits.labels[reserved.server_indices]) / np.bincount(digits.labels)
    np.testing.assert_allclose(shares, 0.1, atol=0.01)
    assert reserved.fingerprint() != digits.fingerprint()
    assert len(digits.server_indices) == 0


def test_the_fingerprint_sees_pixels_labels_and_scale():
    other_pixels = small()
    other_pixels.source.pixels[0, 0, 0, 0] ^= 1
    others = [other_pixels, small((0, 1, 2, 2)), small(mean=[0.2, 0.5])]
    assert small().fingerprint() == small().fingerprint()
    assert len({small().fingerprint(), *(other.fingerprint() for other in others)}) == 4


def test_a_dataset_travels_to_another_process():
    dataset = small()
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy.images([1]), dataset.images([1]))


def test_it_shows_itself():
    assert "4 images" in repr(small())
    assert "<th>b</th>" in small()._repr_html_()
    assert "<td>2</td>" in small()._repr_html_()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": (0, 1, 3, 1)}, r"label 3 is outside 0\.\.2"),
        ({"labels": (0, 1, -1, 1)}, r"label -1 is outside"),
        ({"identity": [1]}, "lengths differ"),
        ({"mean": [0.5]}, "mean and std must be 2 numbers"),
        ({"std": [1, 0]}, "std above 0"),
        ({"client_indices": [4]}, r"client_indices holds 4"),
        ({"client_indices": [1], "server_indices": [1]}, "overlap"),
    ],
)
def test_wrong_datasets_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options)


def test_wrong_indices_are_refused():
    with pytest.raises(IndexError, match=r"0\.\.3"):
        small().images([4])
    with pytest.raises(IndexError, match=r"0\.\.3"):
        small().images([-1])
    with pytest.raises(ValueError, match="twice"):
        small().subset([1, 1])
    with pytest.raises(ValueError, match="pixels must be uint8"):
        ArraySource(np.zeros((2, 3)))


def test_an_unknown_name_lists_what_there_is():
    assert dataset_names() == ("celeba", "cifar10", "digits", "image_folder")
    with pytest.raises(ValueError, match="no dataset 'mnist'; there are celeba, cifar10, digits"):
        load_dataset("mnist")
    with pytest.raises(TypeError, match="colour"):
        load_dataset("digits", colour="red")


def test_digits_are_scikit_learns_own(digits):
    original = load_digits()
    assert digits.input_shape == (1, 32, 32)
    assert (digits.labels == original.target).all()
    # Each pixel has become a field of 4 x 4, blurred at its border.
    shrunk = digits.source.pixels[:, 0].reshape(-1, 8, 4, 8, 4).mean(axis=(2, 4)) / 255 * 16
    assert np.corrcoef(shrunk.ravel(), original.images.ravel())[0, 1] > 0.97
    assert digits.source.pixels.max() == 255


def test_digits_are_normalised_over_the_whole_set(digits):
    images = digits.images(np.arange(1797))
    assert abs(images.mean().item()) < 1e-3
    assert abs(images.std().item() - 1) < 1e-3


def test_digits_in_other_shapes():
    colour = load_dataset("digits", size=16, channels=3)
    assert colour.input_shape == (3, 16, 16)
    images = colour.images([0])
    assert torch.equal(images[:, 0], images[:, 2])
    exact = load_dataset("digits", size=8)
    original = load_digits().images
    np.testing.assert_array_equal(
        exact.source.pixels[:, 0], np.rint(original * (255 / 16)).astype(np.uint8)
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 7}, "size is 7"),
        ({"channels": 2}, "channels is 2"),
        ({"root": "here"}, "root is here"),
    ],
)
def test_wrong_options_of_digits(options, message):
    with pytest.raises(ValueError, match=message):
        load_dataset("digits", **options)


def test_digits_can_be_learned(digits):
    from sklearn.linear_model import LogisticRegression

    images = digits.images(np.arange(1797)).flatten(1).numpy()[:, ::4]
    model = LogisticRegression(max_iter=50, tol=1e-2).fit(images[:1000], digits.labels[:1000])
    assert model.score(images[1000:], digits.labels[1000:]) > 0.85
