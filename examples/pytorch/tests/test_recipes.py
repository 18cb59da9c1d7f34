# SPDX-License-Identifier: MIT
"""Every recipe, on small files in the layout of its data; networks are made smaller where their size is a setting."""

import json
from math import sqrt

import pytest
import torch
from torch import nn

import train_layouts
import train
from train_layouts import RECIPES, one_thread  # noqa: F401 (a fixture)
from training import data, networks, recipe


def run(name, folder, out, *settings, arguments=()):
    sets = [part for setting in settings for part in ("--set", setting)]
    train.main(
        [
            str(RECIPES / f"{name}.toml"),
            "--data",
            str(folder),
            "--out",
            str(out),
            "--epochs",
            "1",
            "--device",
            "cpu",
            *sets,
            *arguments,
        ]
    )
    report = json.loads((out / "report.json").read_text())
    for kind in report["recipe"]["heads"]:
        assert (out / f"{kind}.pt").exists()
        loss = report["heads"][kind]["epochs"][-1]["loss"]
        assert loss == loss and 0 < loss < 1e4
    return report


def test_all_recipes_are_here():
    assert {path.stem for path in RECIPES.glob("*.toml")} == {
        "fashion_mnist",
        "mnist",
        "cifar100_simple",
        "imagenet_resnet50",
        "faces_lfw",
    }
    for path in RECIPES.glob("*.toml"):
        assert recipe.load(path).name == path.stem


@pytest.mark.parametrize("name", ["fashion_mnist", "mnist"])
def test_mnist_layout(name, tmp_path):
    folder = train_layouts.idx(tmp_path, 128, 20)
    report = run(name, folder, tmp_path / "out", "training.batch=64")
    assert (tmp_path / "out" / "features.png").exists()
    assert 0 <= report["heads"]["lgm"]["test"]["accuracy"] <= 1


def test_mnist_network():
    network, features = networks.make(recipe.load(RECIPES / "mnist.toml").network, (1, 28, 28))
    convs = [layer for layer in network if isinstance(layer, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size) for c in convs] == [
        (1, 32, (5, 5)),
        (32, 32, (5, 5)),
        (32, 64, (5, 5)),
        (64, 64, (5, 5)),
        (64, 128, (5, 5)),
        (128, 128, (5, 5)),
    ]
    assert features == 2 and network[-1].in_features == 128 * 3 * 3
    assert sum(isinstance(layer, nn.PReLU) for layer in network) == 6


def test_cifar100_simple(tmp_path):
    archive = train_layouts.cifar100(tmp_path, 140, 20)
    report = run("cifar100_simple", archive, tmp_path / "file", "network.widths=[8, 8, 16]", "head.init_scale=0.35")
    assert report["data"] == {"train": 140, "test": 20, "classes": 100}
    assert report["heads"]["lgm"]["test"]["top5"] >= report["heads"]["lgm"]["test"]["accuracy"]
    assert not (tmp_path / "file" / "features.png").exists()
    run("cifar100_simple", tmp_path, tmp_path / "folder", "network.widths=[8, 8, 16]", arguments=["--heads", "lgm"])


def test_cifar100_network():
    """That of trainval.prototxt, layer by layer."""
    chosen = recipe.load(RECIPES / "cifar100_simple.toml")
    network, features = networks.make(chosen.network, (3, 32, 32))
    widths = [96] * 5 + ["pool"] + [192] * 4 + ["pool"] + [384] * 4 + ["average"]
    channels, layers = 3, iter(network)
    for width in widths:
        if width == "pool":
            pool = next(layers)
            assert isinstance(pool, nn.MaxPool2d) and pool.kernel_size == pool.stride == 2
        elif width == "average":
            assert isinstance(next(layers), nn.AdaptiveAvgPool2d)
        else:
            conv, norm, relu = next(layers), next(layers), next(layers)
            assert (conv.in_channels, conv.out_channels) == (channels, width)
            assert conv.kernel_size == (3, 3) and conv.padding == (1, 1) and conv.bias is None
            assert conv.weight.std().item() == pytest.approx(sqrt(2 / (9 * channels)), rel=0.1)
            assert isinstance(norm, nn.BatchNorm2d) and norm.momentum == pytest.approx(1 - 0.97) and norm.affine
            assert isinstance(relu, nn.ReLU)
            channels = width
    assert isinstance(next(layers), nn.Flatten) and next(layers, None) is None
    assert features == 384
    head = networks.make_head("lgm", chosen, features, 100)
    assert head.mean.std().item() == pytest.approx(sqrt(2 / 384), rel=0.02)
    assert head.log_variance is None and head.lambda_ == 0.1
    margins = []
    for iteration in (0, 4999, 5000, 9999, 10000, 100000):
        margins.append(head.schedule(iteration))
    assert margins == pytest.approx([0.1, 0.1, 0.2, 0.2, 0.3, 0.3])


def test_imagenet(tmp_path):
    folder = train_layouts.folders(tmp_path)
    report = run(
        "imagenet_resnet50",
        folder,
        tmp_path / "out",
        "data.random_resized_crop=64",
        "data.resize=72",
        "data.center_crop=64",
        "data.workers=0",
        arguments=["--heads", "lgm"],
    )
    assert report["data"] == {"train": 6, "test": 3, "classes": 3}
    kept = torch.load(tmp_path / "out" / "lgm.pt", weights_only=True)
    assert kept["head"]["mean"].shape == (3, 2048)
    assert not any(name.startswith("fc.") for name in kept["network"])


def test_imagenet_classes_are_those_of_training(tmp_path):
    chosen = recipe.load(RECIPES / "imagenet_resnet50.toml")
    folder = train_layouts.folders(tmp_path / "lacks")
    for file in (folder / "val" / "n01440764").iterdir():
        file.unlink()
    (folder / "val" / "n01440764").rmdir()
    sets = data.load(chosen, folder)
    assert [sets.test[i][1] for i in range(len(sets.test))] == [1, 2]
    folder = train_layouts.folders(tmp_path / "more")
    (folder / "val" / "n9").mkdir()
    with pytest.raises(data.DataError, match="train lacks: n9"):
        data.load(chosen, folder)
    with pytest.raises(data.DataError, match="train"):
        data.load(chosen, tmp_path)


def test_workers_load_the_same(tmp_path):
    """Processes that load images: the same bits on every run."""
    folder = train_layouts.folders(tmp_path, train=3)
    losses = [
        run(
            "imagenet_resnet50",
            folder,
            tmp_path / str(i),
            "network.kind=resnet18",
            "data.random_resized_crop=32",
            "data.resize=40",
            "data.center_crop=32",
            "data.workers=1",
            arguments=["--heads", "softmax"],
        )["heads"]["softmax"]["epochs"][0]["loss"]
        for i in range(2)
    ]
    assert losses[0] == losses[1]


def test_faces(tmp_path):
    folder = train_layouts.faces(tmp_path)
    report = run("faces_lfw", folder, tmp_path / "out", "data.size=[64, 64]", "data.workers=0")
    assert report["data"] == {"train": 6, "test": 12, "classes": 3}
    for kind in ("softmax", "lgm"):
        result = report["heads"][kind]["test"]
        for metric in ("cosine", "euclidean"):
            assert 0 <= result[metric] <= 1 and len(result[f"{metric}_folds"]) == 10
            assert result[metric] == pytest.approx(sum(result[f"{metric}_folds"]) / 10)
            assert result[f"{metric}_standard_error"] >= 0
    kept = torch.load(tmp_path / "out" / "lgm.pt", weights_only=True)
    assert kept["head"]["mean"].shape == (3, 512)


def test_faces_lack_an_image(tmp_path):
    folder = train_layouts.faces(tmp_path)
    next((folder / "lfw" / "Abel_Pacheco").iterdir()).unlink()
    with pytest.raises(data.DataError, match="pairs.txt names Abel_Pacheco_000"):
        data.load(recipe.load(RECIPES / "faces_lfw.toml"), folder)
