# SPDX-License-Identifier: MIT
"""usage: model_numpy.py DATA RESULTS MODEL...

Reads model files with NumPy alone, as model_file.hpp describes them, runs the test images of DATA through each, and
compares with the results.json that their training wrote.
"""
import json
import sys

import numpy as np

DTYPES = {"F32": "<f4", "F64": "<f8", "I64": "<i8"}


def load(path):
    with open(path, "rb") as file:
        content = file.read()
    length = int.from_bytes(content[:8], "little")
    assert length % 8 == 0
    header = json.loads(content[8 : 8 + length])
    data = content[8 + length :]
    metadata = header.pop("__metadata__")
    assert all(isinstance(value, str) for value in metadata.values())
    tensors, at = {}, 0
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        assert begin == at, name
        at = end
        tensors[name] = np.frombuffer(data[begin:end], DTYPES[entry["dtype"]]).reshape(entry["shape"])
    assert at == len(data)
    return metadata, tensors


def idx(path, dimensions):
    content = np.fromfile(path, np.uint8)
    sizes = content[4 : 4 + 4 * dimensions].view(">u4")
    return content[4 + 4 * dimensions :].reshape(sizes)


def features(tensors, images):
    x = (images - tensors["input.shift"].astype(float)) * tensors["input.scale"]
    layer = 0
    while f"network.{layer}.weight" in tensors:
        x = x @ tensors[f"network.{layer}.weight"] + tensors[f"network.{layer}.bias"]
        if f"network.{layer}.slope" in tensors:
            x = np.where(x > 0, x, tensors[f"network.{layer}.slope"] * x)
        layer += 1
    return x


def logits(tensors, x):
    if "head.weight" in tensors:
        return x @ tensors["head.weight"].T + tensors["head.bias"]
    mean = tensors["head.mean"]
    log_variance = tensors.get("head.log_variance", np.zeros(len(mean)))
    if log_variance.ndim == 1:
        log_variance = np.repeat(log_variance[:, None], mean.shape[1], 1)
    squares = (x[:, None, :] - mean) ** 2 * np.exp(-log_variance)
    return -0.5 * (squares + log_variance).sum(2)


def cross_entropy(values, labels):
    top = values.max(1)
    sums = top + np.log(np.exp(values - top[:, None]).sum(1))
    return (sums - values[np.arange(len(labels)), labels]).mean()


directory, results_path, *models = sys.argv[1:]
test_images = idx(f"{directory}/t10k-images-idx3-ubyte", 3)
test_images = test_images.reshape(len(test_images), -1)
test_labels = idx(f"{directory}/t10k-labels-idx1-ubyte", 1)
with open(results_path) as results_file:
    results = json.load(results_file)
for model in models:
    metadata, tensors = load(model)
    run = next(r for r in results["heads"][metadata["head"]]["runs"] if str(r["seed"]) == metadata["seed"])
    values = logits(tensors, features(tensors, test_images))
    accuracy = (values.argmax(1) == test_labels).mean()
    assert abs(accuracy - run["test_accuracy"]) < 1e-9, (model, accuracy, run["test_accuracy"])
    loss = cross_entropy(values, test_labels)
    expected = run["test_loss"]["classification"]
    assert abs(loss - expected) <= 1e-4 * abs(expected) + 1e-6, (model, loss, expected)
    assert int(metadata["steps"]) == run["steps"]
    samples, correct = tensors["epoch.counts"]
    assert samples == results["data"]["train_images"] and 0 <= correct <= samples
    last_epoch = tensors["epoch.loss_sums"] / samples
    assert abs(last_epoch[0] - run["last_epoch_loss_with_margin"]["total"]) < 1e-12
    for name, tensor in tensors.items():
        if name.startswith("adam.first."):
            parameter = tensors[name[len("adam.first.") :]]
            assert parameter.shape == tensor.shape and parameter.dtype == np.float32, name
print(f"NumPy {np.__version__} reads {len(models)} model files")
