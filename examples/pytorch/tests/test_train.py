# SPDX-License-Identifier: MIT
"""The training loop, its settings, checkpoints and results, on a small set in MNIST's layout."""

import gzip
import json

import numpy as np
import pytest
import torch
from PIL import Image

import train_layouts
import train
from train_layouts import RECIPES, one_thread  # noqa: F401 (a fixture)
from training import data, networks, recipe, trainer

SMALL = [
    "network.widths=[4, 8]",
    "network.convs=[1, 1]",
    "training.batch=16",
    "optimizer.rate=0.05",
    "optimizer.milestones=[3]",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return train_layouts.idx(tmp_path_factory.mktemp("idx"), 200, 60)


def run(folder, out, *arguments, settings=(), name="fashion_mnist"):
    sets = [part for setting in (*SMALL, *settings) for part in ("--set", setting)]
    train.main(
        [str(RECIPES / f"{name}.toml"), "--data", str(folder), "--out", str(out), "--device", "cpu", *sets, *arguments]
    )
    return json.loads((out / "report.json").read_text())


def states(path):
    state = torch.load(path, weights_only=True)
    state.pop("seconds")
    return state


def same(a, b):
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def test_learns_and_reports(folder, tmp_path, capsys):
    """Ten classes of bars, with room to spread: 8 features of where things are."""
    report = run(
        folder,
        tmp_path,
        "--epochs",
        "8",
        settings=[
            "head.estimate=true",
            "data.mirror=false",
            "network.features=8",
            "network.last_pool=max",
            "optimizer.rate=0.005",
            "optimizer.milestones=[]",
        ],
    )
    printed = capsys.readouterr().out
    for kind, title in (("softmax", "softmax"), ("lgm", "L-GM")):
        result = report["heads"][kind]
        assert result["test"]["accuracy"] > 0.9
        assert [line["epoch"] for line in result["epochs"]] == list(range(1, 9))
        assert result["epochs"][-1]["accuracy"] == result["test"]["accuracy"]
        assert result["epochs"][-1]["loss"] < result["epochs"][0]["loss"]
        assert f"{title}" in printed and f"{100 * result['test']['accuracy']:.2f} %" in printed
    assert report["heads"]["lgm"]["test_estimated"]["accuracy"] > 0.9
    assert "L-GM, means estimated" in printed
    assert report["data"] == {"train": 200, "test": 60, "classes": 10}
    # alpha follows its schedule: one iteration a batch.
    kept = states(tmp_path / "lgm.pt")["head"]
    assert kept["iteration"].item() == 8 * (200 // 16)
    assert kept["alpha"].item() == pytest.approx(0.1)
    assert not (tmp_path / "features.png").exists()


def test_picture(folder, tmp_path):
    run(folder, tmp_path, "--epochs", "1")
    with Image.open(tmp_path / "features.png") as picture:
        assert picture.size[0] > 1.8 * picture.size[1]  # two panels
        colours = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(colours, axis=0)) > 50


def test_same_seed_same_bits(folder, tmp_path):
    for out, settings in (("a", []), ("b", []), ("c", ["seed=1"])):
        run(folder, tmp_path / out, "--epochs", "1", settings=settings)
    for kind in ("softmax", "lgm"):
        a, b, c = (states(tmp_path / out / f"{kind}.pt") for out in "abc")
        assert same(a, b)
        assert not same(a["network"], c["network"])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_resumes_exactly(optimizer, folder, tmp_path):
    """With random windows and mirror images, over a step of alpha and of the learning rate."""
    settings = [
        f"optimizer.kind={optimizer}",
        "data.crop=28",
        "data.pad=2",
        "head.alpha.step=20",
        "optimizer.milestones=[2]",
        "head.covariance=diagonal",
    ]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(folder, whole, "--epochs", "3", settings=settings)
    run(folder, parts, "--epochs", "1", settings=settings)
    run(folder, parts, "--epochs", "3", "--resume", settings=settings)
    for kind in ("softmax", "lgm"):
        a, b = states(whole / f"{kind}.pt"), states(parts / f"{kind}.pt")
        for line in (*a["history"], *b["history"]):
            line.pop("accuracy", None)
        assert same(a, b)
    # A training that has come to its end is only tested.
    again = run(folder, parts, "--epochs", "3", "--resume", settings=settings)
    assert len(again["heads"]["lgm"]["epochs"]) == 3


def test_resumes_no_other_recipe(folder, tmp_path):
    run(folder, tmp_path, "--epochs", "1", "--heads", "lgm")
    with pytest.raises(recipe.RecipeError, match="another recipe: head.lambda_, optimizer.rate"):
        run(
            folder,
            tmp_path,
            "--epochs",
            "2",
            "--heads",
            "lgm",
            "--resume",
            settings=["head.lambda=0.2", "optimizer.rate=0.01"],
        )


def test_rates_and_decay(folder):
    chosen = recipe.load(RECIPES / "cifar100_simple.toml", ["optimizer.milestones=[3, 5]"])
    network, head = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    optimizer = trainer.make_optimizer(chosen, network, head)
    schedule = trainer.make_schedule(chosen, optimizer, 100)
    rates = []
    for _ in range(6):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    assert np.array(rates) == pytest.approx(np.outer([0.1, 0.1, 0.1, 0.01, 0.01, 0.001], [1, 2]))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0005, 0.0005]
    assert all(group["nesterov"] and group["momentum"] == 0.9 for group in optimizer.param_groups)
    in_epochs = recipe.load(RECIPES / "fashion_mnist.toml", ["optimizer.milestones=[3, 5]", "optimizer.warmup=4"])
    (factor, _) = trainer.make_schedule(in_epochs, optimizer, 100).lr_lambdas
    assert [factor(i) for i in (0, 1, 3, 4, 299, 300, 499, 500)] == pytest.approx([0.25, 0.5, 1, 1, 1, 0.1, 0.1, 0.01])


def test_a_loss_that_is_not_finite_ends_the_training(folder, tmp_path):
    with pytest.raises(RuntimeError, match="learning rate may be too high"):
        run(folder, tmp_path, "--epochs", "5", "--heads", "lgm", settings=["optimizer.rate=1e6"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["head.lamda=1"], "head.lamda is not known; known are alpha, lambda"),
        (["head.lambda=much"], "head.lambda is 'much', and must be of type float"),
        (["training.epochs=1.5"], "must be of type int"),
        (["training.epochs=true"], "must be of type int"),
        (["head.covariance=full"], "must be one of identity, spherical, diagonal"),
        (["head.alpha.policy=up"], "head.alpha.policy is 'up'"),
        (["network.convs=[1]"], "differ in length"),
        (["network=1"], "network is 1, and must be a table"),
        (['heads=["hinge"]'], "heads must be"),
        (["training.epochs"], "must be KEY=VALUE"),
        (["name.first=1"], "name is not a table"),
        (["data.std=0"], "std must be positive"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(recipe.RecipeError) as error:
        recipe.load(RECIPES / "fashion_mnist.toml", settings)
    assert message in str(error.value)


def test_settings(tmp_path):
    chosen = recipe.load(
        RECIPES / "fashion_mnist.toml", ["head.alpha=0.5", "head.lambda=1", "data.mean=[1, 2.5]", "name=other"]
    )
    assert (chosen.head.alpha.policy, chosen.head.alpha.value) == ("constant", 0.5)
    assert type(chosen.head.lambda_) is float and chosen.data.mean == [1.0, 2.5] and chosen.name == "other"
    path = tmp_path / "half.toml"
    path.write_text("name = 'half'\n[data]\nkind = 'idx'\n")
    with pytest.raises(recipe.RecipeError, match="missing 3 required"):
        recipe.load(path)
    path.write_text("name = \n")
    with pytest.raises(recipe.RecipeError, match="half.toml"):
        recipe.load(path)


def test_a_margin_above_one():
    chosen = recipe.load(RECIPES / "mnist.toml", ["head.alpha=2"])
    head = networks.make_head("lgm", chosen, 2, 10)
    assert head.alpha.item() == 2


def test_idx_files(tmp_path):
    folder = train_layouts.idx(tmp_path / "plain", 20, 10, compressed=False)
    plain = data.read_idx(folder / "train-images-idx3-ubyte")
    packed = train_layouts.idx(tmp_path / "packed", 20, 10)
    assert (plain == data.read_idx(packed / "train-images-idx3-ubyte")).all() and plain.shape == (20, 28, 28)
    labels = folder / "train-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1])
    with pytest.raises(data.DataError, match="length"):
        data.read_idx(labels)
    labels.write_bytes(b"no labels")
    with pytest.raises(data.DataError, match="no IDX file"):
        data.read_idx(labels)
    with pytest.raises(data.DataError, match="there is no"):
        data.read_idx(folder / "none")
    whole = gzip.compress(b"\0\0\x08\x01" + bytes(100))
    (folder / "cut.gz").write_bytes(whole[:-9])
    with pytest.raises(data.DataError, match="cut.gz"):
        data.read_idx(folder / "cut")


def test_pixels_and_windows():
    """A pixel p becomes (p - mean) / std; the padding is of zeros before that."""
    settings = recipe.load(RECIPES / "cifar100_simple.toml").data
    image = torch.full((3, 32, 32), 192, dtype=torch.uint8)
    assert (data.transforms(settings, train=False)(image) == 0.5).all()
    torch.manual_seed(0)
    seen = set()
    for _ in range(200):
        window = data.transforms(settings, train=True)(image)
        assert window.shape == (3, 32, 32)
        rows, columns = (window[0] == 0.5).any(1).sum().item(), (window[0] == 0.5).any(0).sum().item()
        assert set(window.unique().tolist()) <= {-1.0, 0.5}
        seen |= {rows, columns}
    assert seen == set(range(28, 33))


def test_no_data(tmp_path):
    chosen = recipe.load(RECIPES / "mnist.toml")
    with pytest.raises(data.DataError, match="--data"):
        data.load(chosen)
    with pytest.raises(data.DataError, match="there is no"):
        data.load(chosen, tmp_path / "none")
    with pytest.raises(data.DataError, match="train-images"):
        data.load(chosen, tmp_path)


def make_training(folder, *settings):
    chosen = recipe.load(RECIPES / "fashion_mnist.toml", [*SMALL, *settings])
    return trainer.Training(chosen, "lgm", data.load(chosen, folder))


def test_estimated_means_and_variances(folder):
    """Those of the training features, as test images are given: not mirrored, in no random window."""
    training = make_training(folder, "head.covariance=diagonal", "head.learn_prior=true", "data.crop=28", "data.pad=3")
    training.run_epoch()
    training.estimate()
    training.network.eval()
    plain = data.transforms(training.recipe.data, train=False)
    with torch.no_grad():
        images = torch.stack([plain(image) for image in training.sets.train.images])
        features = training.network(images).double().numpy()
    labels = np.array(training.sets.train.labels)
    for k in range(10):
        of_class = features[labels == k]
        assert training.head.mean[k].detach().numpy() == pytest.approx(of_class.mean(0), rel=1e-4, abs=1e-5)
        variance = training.head.log_variance[k].exp().detach().numpy()
        assert variance == pytest.approx(np.maximum(of_class.var(0), 1e-6), rel=1e-3)
    assert training.head.log_prior.exp().detach().numpy() == pytest.approx(0.1, rel=1e-5)


def test_features_of_mirror_images(folder):
    training = make_training(folder)
    both, labels = (torch.cat(parts) for parts in zip(*training.features(training.sets.test, mirror=True)))
    images = torch.stack([image for image, _ in training.sets.test])
    with torch.no_grad():
        assert torch.allclose(both[:, :2], training.network(images), atol=1e-5)
        assert torch.allclose(both[:, 2:], training.network(images.flip(-1)), atol=1e-5)
    assert labels.tolist() == training.sets.test.labels


def test_both_heads_start_from_the_same_network(folder):
    chosen = recipe.load(RECIPES / "fashion_mnist.toml", SMALL)
    softmax, lgm = (trainer.Training(chosen, kind, data.load(chosen, folder)) for kind in ("softmax", "lgm"))
    assert same(softmax.network.state_dict(), lgm.network.state_dict())
