# SPDX-License-Identifier: MIT
"""usage: dlpack_python.py LIBRARY

Lends tensors of NumPy, and of PyTorch where it is installed, to the library that dlpack_calls.cpp makes, without a copy, and
compares what comes back with the same formula in NumPy.
"""
import ctypes
import math
import sys

import numpy as np

try:
    import torch
except ImportError:
    torch = None
    print("without PyTorch, which is not installed here")

library = ctypes.CDLL(sys.argv[1])
library.lgm_dlpack_score.restype = ctypes.c_char_p
library.lgm_dlpack_score.argtypes = [ctypes.c_void_p] * 4
pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
pointer_of.restype = ctypes.c_void_p
pointer_of.argtypes = [ctypes.py_object, ctypes.c_char_p]


def score(*arrays):
    """What the library says is wrong, or None."""
    capsules = [array.__dlpack__() for array in arrays]
    answer = library.lgm_dlpack_score(*(pointer_of(capsule, b"dltensor") for capsule in capsules))
    return None if answer is None else answer.decode()


def check(x, mean, density, predicted):
    assert score(x, mean, density, predicted) is None
    x, mean, density, predicted = (np.asarray(a) for a in (x, mean, density, predicted))
    distance = ((x[:, None].astype(float) - mean[None].astype(float)) ** 2).sum(2) / 2
    expected = np.log(np.exp(-distance).mean(1)) - x.shape[1] / 2 * math.log(2 * math.pi)
    assert np.abs(density - expected).max() < 1e-4
    assert (predicted == distance.argmin(1)).all()


def main():
    random = np.random.default_rng(1)
    wide = random.normal(size=(7, 9)).astype(np.float32)
    mean = random.normal(size=(4, 5)).astype(np.float32)
    density, predicted = np.empty(7, np.float32), np.empty(7, np.int64)
    check(np.ascontiguousarray(wide[:, :5]), mean, density, predicted)
    check(wide[:, 2:7], mean, density, predicted)  # rows of a wider array, from its third column on
    wrong = [
        ((wide[:, :5].astype(float), mean), "another type"),
        ((wide.T[:5, :7].T, mean), None),  # rows again: transposed twice
        ((np.asfortranarray(wide[:, :5]), mean), "dimensions or strides"),
        ((wide[:, ::2], mean), "dimensions or strides"),
        ((wide[0, :5], mean), "dimensions or strides"),
        ((wide[:, :4], mean), "dimensions or strides"),
    ]
    for (x, mu), message in wrong:
        answer = score(x, mu, density, predicted)
        assert (answer is None) if message is None else (answer and message in answer), (message, answer)
    assert "another type" in score(wide[:, :5], mean, density, predicted.astype(np.int32))
    if torch is not None:
        x, mu = torch.from_numpy(wide), torch.from_numpy(mean)
        check(x[:, 2:7], mu, torch.empty(7), torch.empty(7, dtype=torch.int64))
        assert "dimensions or strides" in score(x[:1, :5].expand(7, 5), mu, torch.empty(7), torch.empty(7).long())
        assert "another type" in score(x[:, :5].bfloat16(), mu, torch.empty(7), torch.empty(7).long())
    print("all passed")


main()
