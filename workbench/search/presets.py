"""The settings of the two papers, as searches; any part can be changed by name.

The numbers of NAFNAS are those that its published experiments ran with; those of DecNAS stand in
its sections 5.1 and 5.3. Where DecNAS gives none (learning rate, local epochs), a comment says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from workbench import models
from workbench.federation.strategies import FedAvg
from workbench.grouping.balanced import BalancedGrouping
from workbench.grouping.netdag import NetDAG
from workbench.pruning.netadapt import NetAdapt
from workbench.search.policies import CELEBA_ROUNDS, IMAGENET_ROUNDS, EarlyDropping, SearchPolicy
from workbench.search.search import Search
from workbench.testbed.schedules import TierSchedule
from workbench.testbed.simulated import SimulatedTestbed

if TYPE_CHECKING:
    from torch import nn

    from workbench.data.dataset import Dataset
    from workbench.fleet import Fleet


def nafnas(
    dataset: Dataset,
    fleet: Fleet,
    *,
    model: nn.Module | None = None,
    seed: int = 0,
    **changes: Any,  # noqa: ANN401  # whatever Search takes
) -> Search:
    """Return NAFNAS's search: NetAdapt on MACs, seven groups by NetDAG, regrouped each iteration.

    Parameters
    ----------
    dataset, fleet
        The paper: CIFAR-10, 56 or 210 clients, Dirichlet 0.3.
    model
        The initial network; the paper's AlexNet at full width if none is given.
    seed
        Of the model, the schedule and the search.
    **changes
        Parts of the search that are to be different, by the names that `Search` takes.
    """
    if model is None:
        model = models.alexnet(
            num_classes=dataset.num_classes, in_channels=dataset.input_shape[0], seed=seed
        )
    settings: dict[str, Any] = {
        "netadapt": NetAdapt(resource="macs", step=0.025, decay=0.96, budget=0.25, iterations=15),
        "grouping": NetDAG(coeff=0.9, max_iter=10),
        "training": FedAvg(
            rounds=20,
            local_epochs=10,
            learning_rate=0.001,
            momentum=0.9,
            weight_decay=1e-4,
            batch_size=128,
        ),
        "testbed": SimulatedTestbed(schedule=TierSchedule(period_s=300, seed=seed)),
        "policy": SearchPolicy(tune_rounds=50),
        "seed": seed,
    }
    return Search(model, dataset, fleet, **(settings | changes))


def decnas(
    dataset: Dataset,
    fleet: Fleet,
    *,
    setting: Literal["celeba", "imagenet"] = "celeba",
    model: nn.Module | None = None,
    seed: int = 0,
    **changes: Any,  # noqa: ANN401  # whatever Search takes
) -> Search:
    """Return DecNAS's search: balanced groups, early dropping, dynamic rounds.

    Parameters
    ----------
    dataset, fleet
        The paper: CelebA by identity (9,343 clients) or ImageNet (1,500 clients, IID).
    setting
        Whose budgets, rounds and number of groups to take.
    model
        The initial network; ConvNet for CelebA and MobileNet for ImageNet if none is given.
    seed
        Of the model, the groups and the search.
    **changes
        Parts of the search that are to be different, by the names that `Search` takes.

    Raises
    ------
    ValueError
        If ``setting`` is none of the two.
    """
    if setting not in {"celeba", "imagenet"}:
        raise ValueError(f"setting is {setting!r}; allowed are 'celeba' and 'imagenet'")
    on_celeba = setting == "celeba"
    if model is None:
        factory = models.convnet if on_celeba else models.mobilenet
        model = factory(
            num_classes=dataset.num_classes, in_channels=dataset.input_shape[0], seed=seed
        )
    settings: dict[str, Any] = {
        "netadapt": NetAdapt(
            resource="macs",
            step=0.05,
            decay=0.93 if on_celeba else 0.98,
            budget=0.15 if on_celeba else 0.25,
            iterations=40,
        ),
        "grouping": BalancedGrouping(max_ratio=1.1),
        # The paper gives neither; these are usual for SGD on images with batches of this size.
        "training": FedAvg(rounds=10, local_epochs=1, learning_rate=0.01, batch_size=32),
        "policy": SearchPolicy(
            rounds=CELEBA_ROUNDS if on_celeba else IMAGENET_ROUNDS,
            dropping=EarlyDropping(ratio=0.33),
            accuracy="local",
            scheduling="random",
        ),
        "groups": 20 if on_celeba else 15,
        "seed": seed,
    }
    return Search(model, dataset, fleet, **(settings | changes))
