# SPDX-License-Identifier: MIT
"""A recipe: what a TOML file says of a training. Every field of the file is one of these classes' fields."""

import tomllib
import types
import typing
from dataclasses import asdict, dataclass, field, fields, is_dataclass


@dataclass
class Data:
    kind: str  # idx, cifar100, folders or faces; see data.py
    folder: str = ""  # where it lies, if --data does not say so
    classes: list[str] = field(default_factory=list)  # names for the picture
    mean: list[float] = field(default_factory=lambda: [0.0])  # of pixel values from 0 to 255, per channel or for all
    std: list[float] = field(default_factory=lambda: [255.0])
    pad: int = 0  # training: zero pixels on each side,
    crop: int = 0  # then a random window of this height and width
    random_resized_crop: int = 0  # training: a random part of the image, scaled to this height and width
    mirror: bool = False  # training: half of the images
    resize: int = 0  # test: the shorter side is scaled to this,
    center_crop: int = 0  # then the middle is taken
    size: list[int] = field(default_factory=list)  # training and test: scaled to this height and width
    workers: int = 0  # processes that load images
    limit: int = 0  # of training and of test images; 0: all


@dataclass
class Network:
    kind: str  # conv_stages, or a ResNet of torchvision by its name
    features: int = 2  # what the head is given; 0: what the network has without another linear layer
    # conv_stages: convs[i] convolutions of widths[i] channels, then pooling, for each stage i
    widths: list[int] = field(default_factory=lambda: [32, 64, 128])
    convs: list[int] = field(default_factory=lambda: [2, 2, 2])
    kernel: int = 5
    activation: str = "prelu"  # or relu
    batch_norm: bool = False
    batch_norm_momentum: float = 0.1
    last_pool: str = "max"  # or average: of each whole channel
    init: str = "default"  # PyTorch's; msra: normal with variance 2 / fan in; xavier: uniform with variance 1 / fan in


@dataclass
class Alpha:
    policy: str = "constant"  # step_up, add_up, ramp: see SteppedSchedule
    value: float = 0.0
    step: int = 1000
    gamma: float = 1.0
    min: float = 0.0
    max: float = 1.0


@dataclass
class Head:
    alpha: Alpha = field(default_factory=Alpha)
    lambda_: float = 0.1  # `lambda` in the file
    covariance: str = "identity"
    learn_prior: bool = False
    init_scale: float = 1.0
    rate: float = 1.0  # times the learning rate
    decay: float = 1.0  # times the weight decay
    estimate: bool = False  # after training, means and variances are also taken from the training features, and tested


@dataclass
class Optimizer:
    kind: str = "sgd"  # or adamw
    rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0005
    milestones: list[int] = field(default_factory=list)  # where the rate is multiplied by gamma
    unit: str = "epochs"  # of milestones; or iterations
    gamma: float = 0.1
    warmup: int = 0  # iterations in which the rate rises to its value


@dataclass
class Training:
    epochs: int = 1
    batch: int = 128
    test_batch: int = 500
    test_every: int = 1  # epochs; the last one is always tested


@dataclass
class Faces:
    mirror: bool = True  # features of a test image are those of it and of its mirror image, side by side


@dataclass
class Recipe:
    name: str
    data: Data
    network: Network
    optimizer: Optimizer
    training: Training
    head: Head = field(default_factory=Head)
    faces: Faces = field(default_factory=Faces)
    heads: list[str] = field(default_factory=lambda: ["softmax", "lgm"])
    seed: int = 0

    def as_dict(self):
        return asdict(self)


class RecipeError(ValueError):
    pass


CHOICES = {
    "data.kind": ("idx", "cifar100", "folders", "faces"),
    "network.activation": ("prelu", "relu"),
    "network.last_pool": ("max", "average"),
    "network.init": ("default", "msra", "xavier"),
    "head.covariance": ("identity", "spherical", "diagonal"),
    "head.alpha.policy": ("constant", "step_up", "add_up", "ramp"),
    "optimizer.kind": ("sgd", "adamw"),
    "optimizer.unit": ("epochs", "iterations"),
}


def _value(declared, given, where):
    if is_dataclass(declared):
        # A number stands for a constant margin.
        if declared is Alpha and isinstance(given, (int, float)) and not isinstance(given, bool):
            given = {"value": given, "max": max(1.0, given)}
        return _fields(declared, given, where)
    if isinstance(declared, types.GenericAlias):
        (element,) = typing.get_args(declared)
        given = given if isinstance(given, list) else [given]
        return [_value(element, one, where) for one in given]
    if declared is float and isinstance(given, int) and not isinstance(given, bool):
        return float(given)
    if type(given) is not declared:
        raise RecipeError(f"{where} is {given!r}, and must be of type {declared.__name__}")
    if where in CHOICES and given not in CHOICES[where]:
        raise RecipeError(f"{where} is {given!r}, and must be one of {', '.join(CHOICES[where])}")
    return given


def _fields(declared, table, where=""):
    if not isinstance(table, dict):
        raise RecipeError(f"{where} is {table!r}, and must be a table")
    prefix = where and where + "."
    known = {one.name.rstrip("_"): one for one in fields(declared)}
    for key in table:
        if key not in known:
            raise RecipeError(f"{prefix}{key} is not known; known are {', '.join(known)}")
    try:
        return declared(**{known[k].name: _value(known[k].type, v, prefix + k) for k, v in table.items()})
    except TypeError as error:  # a field without default
        raise RecipeError(f"{where or 'the recipe'}: {str(error).split('() ')[-1]}") from None


def _set(table, setting):
    """Applies KEY=VALUE, KEY with dots, VALUE as in TOML; a word needs no quotes."""
    key, equals, text = setting.partition("=")
    if not equals:
        raise RecipeError(f"--set {setting}: must be KEY=VALUE")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *tables, last = key.strip().split(".")
    for name in tables:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise RecipeError(f"--set {setting}: {name} is not a table")
    table[last] = value


def load(path, settings=()):
    with open(path, "rb") as file:
        try:
            table = tomllib.load(file)
        except tomllib.TOMLDecodeError as error:
            raise RecipeError(f"{path}: {error}") from None
    for setting in settings:
        _set(table, setting)
    recipe = _fields(Recipe, table)
    checks = [
        (len(recipe.network.widths) == len(recipe.network.convs), "network.widths and network.convs differ in length"),
        (recipe.training.epochs >= 1, "training.epochs must be at least 1"),
        (recipe.training.batch >= 1 and recipe.training.test_batch >= 1, "batches must be of at least 1 image"),
        (recipe.optimizer.warmup >= 0, "optimizer.warmup must not be negative"),
        (recipe.training.test_every >= 1, "training.test_every must be at least 1"),
        (all(std > 0 for std in recipe.data.std), "data.std must be positive"),
        (len(recipe.data.size) in (0, 2), "data.size must be a height and a width"),
        (set(recipe.heads) <= {"softmax", "lgm"} and recipe.heads, "heads must be softmax, lgm or both"),
    ]
    for right, message in checks:
        if not right:
            raise RecipeError(message)
    return recipe
