#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Trains the network of a recipe with a softmax head and with an L-GM head, and compares them.

    python3 train.py                                     recipes/fashion_mnist.toml
    python3 train.py recipes/cifar100_simple.toml --data cifar-100-python.tar.gz --heads lgm
    python3 train.py --set network.features=32 --set head.covariance=spherical --epochs 10

OUT (--out) gets report.json, a checkpoint HEAD.pt for each head, and with 2-D features the picture features.png.
"""

import argparse
import json
import platform
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torchvision

from training import data, picture, recipe, trainer

FOLDER = Path(__file__).resolve().parent

TITLES = {"softmax": "softmax", "lgm": "L-GM"}


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "recipe", nargs="?", type=Path, default=FOLDER / "recipes" / "fashion_mnist.toml", metavar="RECIPE.toml"
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="folder of the data, in place of the recipe's data.folder"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="default: build/examples/pytorch/NAME in the repository, NAME here where this folder lies elsewhere",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="KEY=VALUE",
        help="another value for one of the recipe's fields, such as optimizer.rate=0.01",
    )
    parser.add_argument("--epochs", type=int, metavar="N")
    parser.add_argument("--heads", nargs="+", choices=("softmax", "lgm"))
    parser.add_argument(
        "--resume", action="store_true", help="go on from the checkpoints in --out, where there are some"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: %(default)s")
    parser.add_argument("--threads", type=int, metavar="N", help="of the CPU; default: all")
    return parser.parse_args(arguments)


def default_out(name):
    repository = FOLDER.parent.parent
    return (
        repository / "build" / "examples" / "pytorch" if (repository / "include" / "lgm").is_dir() else Path()
    ) / name


def percent(values):
    """A test's result in words."""
    if "cosine" in values:
        return ", ".join(
            f"{metric} {100 * values[metric]:.2f} +- {100 * values[metric + '_standard_error']:.2f} %"
            for metric in ("cosine", "euclidean")
        )
    text = f"{100 * values['accuracy']:.2f} %"
    return text + (f", top 5 {100 * values['top5']:.2f} %" if "top5" in values else "")


def train(training, epochs, test_every, checkpoint):
    """Up to so many epochs in all."""
    while training.epoch < epochs:
        line = training.run_epoch()
        if training.epoch % test_every == 0 or training.epoch == epochs:
            line |= training.test()
        training.save(checkpoint)
        tested = f", test {percent(line)}" if len(line) > 2 else ""
        print(
            f"{TITLES[training.kind]:8} epoch {line['epoch']} of {epochs}: loss {line['loss']:.4f}{tested}", flush=True
        )


def panel(training, accuracy):
    """What picture.draw shows of a head."""
    features, labels = (torch.cat(parts).cpu().numpy() for parts in zip(*training.features(training.sets.test)))
    if training.kind == "lgm":
        crosses, are = training.head.mean.detach().cpu().numpy(), "learned means"
    else:
        crosses = np.array([features[labels == k].mean(0) for k in np.unique(labels)])
        are = "average of each class"
    return f"{TITLES[training.kind]}: test accuracy {percent(accuracy)}", features, labels, crosses, are


def table(rows):
    """Rows of text, columns aligned."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def main(arguments=None):
    options = parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    chosen = recipe.load(options.recipe, options.settings)
    chosen.heads = options.heads or chosen.heads
    if options.epochs is not None:
        if options.epochs < 1:
            raise recipe.RecipeError("--epochs must be at least 1")
        chosen.training.epochs = options.epochs
    if options.device == "cpu":
        torch.use_deterministic_algorithms(True)
    out = options.out or default_out(chosen.name)
    out.mkdir(parents=True, exist_ok=True)
    sets = data.load(chosen, options.data)
    faces = (
        f", {sets.folds.same.size} pairs of {len(sets.test)} images" if sets.folds else f", {len(sets.test)} to test"
    )
    print(f"{chosen.name}: {len(sets.train)} images of {len(sets.classes)} classes{faces}")

    report = {
        "recipe": chosen.as_dict(),
        "data": {"train": len(sets.train), "test": len(sets.test), "classes": len(sets.classes)},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
        },
        "device": options.device,
        "threads": torch.get_num_threads(),
        "heads": {},
    }
    rows, panels = [("head", "test accuracy", "seconds an epoch", "minutes of this run")], []
    for kind in chosen.heads:
        begin = time.perf_counter()
        training = trainer.Training(chosen, kind, sets, options.device)
        checkpoint = out / f"{kind}.pt"
        if options.resume and checkpoint.exists():
            training.restore(checkpoint)
        train(training, chosen.training.epochs, chosen.training.test_every, checkpoint)
        # Tested again: a resumed training may have nothing left to do.
        result = {"test": training.test(), "seconds_training": training.seconds, "epochs": training.history}
        if training.dims == 2 and not sets.folds:
            panels.append(panel(training, result["test"]))
        rows.append((TITLES[kind], percent(result["test"]), f"{training.seconds / training.epoch:.1f}", ""))
        if kind == "lgm" and chosen.head.estimate:
            training.estimate()
            result["test_estimated"] = training.test()
            rows.append(("L-GM, means estimated", percent(result["test_estimated"]), "", ""))
        result["seconds_all"] = time.perf_counter() - begin
        rows[-1] = (*rows[-1][:3], f"{result['seconds_all'] / 60:.1f}")
        report["heads"][kind] = result

    if panels:
        picture.draw(out / "features.png", panels, sets.classes)
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    print("\n" + table(rows))
    print(f"\n{out / 'report.json'}" + (f", {out / 'features.png'}" if panels else ""))


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(f"train.py: {error}")
