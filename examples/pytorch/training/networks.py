# SPDX-License-Identifier: MIT
"""Networks from images to features, and the two heads that make classes of features."""

from math import sqrt

import torch
import torchvision
from lgm_torch import LGMLoss, SteppedSchedule
from torch import nn
from torch.nn import functional

from .recipe import RecipeError


def conv_stages(network, image):
    """Stages of convolutions that keep height and width, each followed by a pooling. image: channels, height, width"""
    layers, channels, size = [], image[0], min(image[1:])
    for stage, (width, convs) in enumerate(zip(network.widths, network.convs)):
        for _ in range(convs):
            layers.append(
                nn.Conv2d(channels, width, network.kernel, padding=network.kernel // 2, bias=not network.batch_norm)
            )
            if network.batch_norm:
                layers.append(nn.BatchNorm2d(width, momentum=network.batch_norm_momentum))
            layers.append(nn.PReLU(width) if network.activation == "prelu" else nn.ReLU(inplace=True))
            channels = width
        if stage == len(network.widths) - 1 and network.last_pool == "average":
            layers.append(nn.AdaptiveAvgPool2d(1))
        else:
            if size < 2:
                raise RecipeError(f"images of {image[1]}x{image[2]} are too small for {len(network.widths)} stages")
            layers.append(nn.MaxPool2d(2))
            size //= 2
    layers.append(nn.Flatten())
    return nn.Sequential(*layers)


def _initialize(module, init):
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)) and init != "default":
            fan_in = layer.weight[0].numel()
            if init == "msra":
                nn.init.normal_(layer.weight, std=sqrt(2 / fan_in))
            else:
                nn.init.uniform_(layer.weight, -sqrt(3 / fan_in), sqrt(3 / fan_in))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def make(network, image):
    """The network of a recipe for images of shape image, and the number of its features."""
    if network.kind == "conv_stages":
        module = conv_stages(network, image)
        with torch.no_grad():
            width = module.eval()(torch.zeros(1, *image)).shape[1]
        if network.features:
            module.append(nn.Linear(width, network.features))
    elif network.kind in torchvision.models.list_models() and network.kind.startswith(
        ("resnet", "wide_resnet", "resnext")
    ):
        module = torchvision.models.get_model(network.kind)
        width = module.fc.in_features
        module.fc = nn.Linear(width, network.features) if network.features else nn.Identity()
    else:
        raise RecipeError(f"network.kind is {network.kind!r}, and must be conv_stages or a ResNet of torchvision")
    _initialize(module, network.init)
    return module.train(), network.features or width


class Softmax(nn.Linear):
    """A linear layer with softmax and cross entropy; called as LGMLoss is."""

    def forward(self, features, target):
        return functional.cross_entropy(super().forward(features), target)

    def logits(self, features):
        return super().forward(features)

    def step(self):
        pass


def make_head(kind, recipe, features, classes):
    head = recipe.head
    if kind == "softmax":
        return Softmax(features, classes)
    alpha = head.alpha
    schedule = SteppedSchedule(
        policy=alpha.policy, value=alpha.value, step=alpha.step, gamma=alpha.gamma, min=alpha.min, max=alpha.max
    )
    return LGMLoss(
        features,
        classes,
        alpha=schedule,
        lambda_=head.lambda_,
        covariance=head.covariance,
        learn_prior=head.learn_prior,
        init_scale=head.init_scale,
        seed=recipe.seed,
    )
