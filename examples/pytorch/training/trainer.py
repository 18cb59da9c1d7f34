# SPDX-License-Identifier: MIT
"""The training loop: one head at a time, tested after epochs, kept in a checkpoint at the end of each."""

import os
import time
from pathlib import Path

import torch

from . import networks, pairs
from .data import batches
from .recipe import RecipeError


def seed_of(recipe, epoch):
    """Every epoch has random numbers of its own, so that resuming needs no state of generators."""
    return recipe.seed * 1_000_003 + epoch


def make_optimizer(recipe, network, head):
    settings = recipe.optimizer
    decay = settings.weight_decay
    groups = [
        {"params": list(network.parameters())},
        {
            "params": list(head.parameters()),
            "lr": settings.rate * recipe.head.rate,
            "weight_decay": decay * recipe.head.decay,
        },
    ]
    if settings.kind == "sgd":
        return torch.optim.SGD(groups, settings.rate, settings.momentum, weight_decay=decay, nesterov=settings.nesterov)
    return torch.optim.AdamW(groups, settings.rate, weight_decay=decay)


def make_schedule(recipe, optimizer, batches_per_epoch):
    settings = recipe.optimizer
    unit = batches_per_epoch if settings.unit == "epochs" else 1

    def factor(iteration):
        warm = min(1.0, (iteration + 1) / settings.warmup) if settings.warmup else 1.0
        return warm * settings.gamma ** sum(iteration >= n * unit for n in settings.milestones)

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


class Training:
    """One head with its network, and what of it a checkpoint keeps."""

    def __init__(self, recipe, kind, sets, device="cpu"):
        self.recipe, self.kind, self.sets, self.device = recipe, kind, sets, device
        self.train_batches = torch.Generator()
        self.loader = batches(sets.train, recipe.training.batch, recipe.data.workers, self.train_batches, device)
        torch.manual_seed(recipe.seed)  # both heads begin with the same network
        image = tuple(sets.train[0][0].shape)
        network, self.dims = networks.make(recipe.network, image)
        self.network = network.to(device)
        self.head = networks.make_head(kind, recipe, self.dims, len(sets.classes)).to(device)
        self.optimizer = make_optimizer(recipe, self.network, self.head)
        self.schedule = make_schedule(recipe, self.optimizer, len(self.loader))
        self.parts = {
            "network": self.network,
            "head": self.head,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
        }
        self.history = []  # one dict an epoch
        self.seconds = 0.0  # of training, without tests

    @property
    def epoch(self):
        return len(self.history)

    def run_epoch(self):
        torch.manual_seed(seed_of(self.recipe, self.epoch + 1))
        self.train_batches.manual_seed(seed_of(self.recipe, self.epoch + 1))
        self.network.train()
        begin, total = time.perf_counter(), torch.zeros((), device=self.device)
        for images, labels in self.loader:
            images = images.to(self.device, non_blocking=True)
            labels = labels.to(self.device, non_blocking=True)
            self.optimizer.zero_grad()
            loss = self.head(self.network(images), labels)
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            self.head.step()
            total += loss.detach()
        mean = total.item() / len(self.loader)
        self.seconds += time.perf_counter() - begin
        if not torch.isfinite(total):
            raise RuntimeError(f"the loss of epoch {self.epoch + 1} is {mean}: the learning rate may be too high")
        self.history.append({"epoch": self.epoch + 1, "loss": mean})
        return self.history[-1]

    @torch.inference_mode()
    def features(self, dataset, mirror=False):
        """Batches of features and labels of a data set; with mirror, the mirror image's follow an image's own."""
        self.network.eval()
        for images, labels in batches(
            dataset, self.recipe.training.test_batch, self.recipe.data.workers, device=self.device
        ):
            images = images.to(self.device)
            of_images = self.network(images)
            if mirror:
                of_images = torch.cat([of_images, self.network(images.flip(-1))], 1)
            yield of_images, labels.to(self.device)

    @torch.inference_mode()
    def test(self):
        """A dict: accuracy, and top5 with 100 classes or more; of faces the accuracies of pairs."""
        if self.sets.folds:
            of_images = [f for f, _ in self.features(self.sets.test, self.recipe.faces.mirror)]
            of_images = torch.cat(of_images).double().cpu().numpy()
            found = {}
            for metric in ("cosine", "euclidean"):
                similarity = pairs.similarities(of_images, self.sets.folds, metric)
                mean, error, folds, _ = pairs.accuracy(similarity, self.sets.folds.same)
                found |= {metric: mean, f"{metric}_standard_error": error, f"{metric}_folds": folds}
            return found
        right = top5 = 0
        for of_images, labels in self.features(self.sets.test):
            logits = self.head.logits(of_images)
            right += (logits.argmax(1) == labels).sum().item()
            if len(self.sets.classes) >= 100:
                top5 += (logits.topk(5).indices == labels[:, None]).sum().item()
        count = len(self.sets.test)
        return {"accuracy": right / count} | ({"top5": top5 / count} if len(self.sets.classes) >= 100 else {})

    @torch.no_grad()
    def estimate(self):
        """Means, and where they are parameters variances and priors, of the training features."""
        moments = self.head.new_moments()
        for of_images, labels in self.features(self.sets.train_plain):
            moments.update(of_images, labels)
        self.head.estimate_(moments)

    def save(self, path):
        """Replaces the file in one piece."""
        state = {name: part.state_dict() for name, part in self.parts.items()}
        state |= {"recipe": _fixed(self.recipe), "history": self.history, "seconds": self.seconds}
        part = Path(path).with_suffix(".part")
        torch.save(state, part)
        os.replace(part, path)

    def restore(self, path):
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["recipe"] != _fixed(self.recipe):
            differing = _differing(state["recipe"], _fixed(self.recipe))
            raise RecipeError(f"{path} was trained with another recipe: {', '.join(differing)}")
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        self.history, self.seconds = state["history"], state["seconds"]


def _fixed(recipe):
    """What must not change when a training is resumed."""
    kept = recipe.as_dict()
    del kept["heads"], kept["training"]["epochs"], kept["training"]["test_every"], kept["data"]["workers"]
    del kept["data"]["folder"], kept["data"]["classes"]
    return kept


def _differing(a, b, where=""):
    names = []
    for key in sorted(a.keys() | b.keys()):
        if a.get(key) != b.get(key):
            nested = isinstance(a.get(key), dict) and isinstance(b.get(key), dict)
            names += _differing(a[key], b[key], f"{where}{key}.") if nested else [where + key]
    return names
