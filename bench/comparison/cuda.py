# SPDX-License-Identifier: MIT
"""What is measured on a CUDA device: PyTorch's heads, liger-kernel's where it is installed, and lgm, all on the same float32
arrays with products in float (TF32 off). Each step is timed by CUDA events, with the second-level cache emptied before."""

import ctypes
import importlib.util

from comparison.problem import ALPHA, LAMBDA

_FORMS = {"fixed": 0, "spherical": 1, "diagonal": 2}


class _Problem(ctypes.Structure):
    # As in compare_lgm_cuda.cpp.
    _fields_ = (
        [(name, ctypes.c_int64) for name in ("samples", "classes", "dims")]
        + [("covariance", ctypes.c_int32)]
        + [(name, ctypes.c_float) for name in ("alpha", "lambda_")]
        + [(name, ctypes.c_void_p) for name in ("features", "mean", "log_variance", "log_prior", "labels")]
        + [
            (name, ctypes.c_void_p)
            for name in ("loss", "feature", "mean_gradient", "log_variance_gradient", "log_prior_gradient", "workspace")
        ]
        + [("workspace_bytes", ctypes.c_int64), ("stream", ctypes.c_void_p)]
    )


def available():
    """Whether this Python's PyTorch has a device."""
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()


def has_liger():
    return importlib.util.find_spec("liger_kernel") is not None


class CudaEngine:
    """PyTorch on its current stream, and the library, where its path is given."""

    inputs = ("features", "mean", "labels", "spherical", "diagonal", "log_prior")

    def __init__(self, library=None):
        import torch

        self.torch, self.path, self._library = torch, library, None
        torch.backends.cuda.matmul.allow_tf32 = False
        self.flushed = torch.empty(2 * torch.cuda.get_device_properties(0).L2_cache_size, dtype=torch.int8, device="cuda")

    @property
    def library(self):
        if self._library is None:
            self._library = ctypes.CDLL(self.path)
            self._library.lgm_compare_cuda_workspace_bytes.restype = ctypes.c_int64
            self._library.lgm_compare_cuda_forward_backward.restype = ctypes.c_char_p
            self._library.lgm_compare_cuda_build.restype = ctypes.c_char_p
        return self._library

    def loaded(self):
        self.torch.cuda.empty_cache()

    def versions(self):
        found = {
            "torch": self.torch.__version__,
            "CUDA of torch": self.torch.version.cuda,
            "device": self.torch.cuda.get_device_name(0),
        }
        if self.path is not None:
            found["lgm"] = self.library.lgm_compare_cuda_build().decode()
        return found

    def seconds(self, step, times):
        """Of each step, by the device's clock."""
        event = lambda: self.torch.cuda.Event(enable_timing=True)
        pairs = [(event(), event()) for _ in range(times)]
        for begin, end in pairs:
            self.flushed.zero_()
            begin.record()
            step()
            end.record()
        self.torch.cuda.synchronize()
        return [begin.elapsed_time(end) / 1e3 for begin, end in pairs]


class _Cuda:
    def __init__(self, engine, data, threads):
        self.engine, self.torch = engine, engine.torch
        on_device = lambda name: self.torch.from_numpy(data[name]).cuda()
        self.x, self.mean, self.z = on_device("features"), on_device("mean"), on_device("labels")
        self.answer = None

    def run(self, times):
        return self.engine.seconds(self.step, times)

    def memory(self):
        """The most bytes that a step has beyond its inputs, its results included."""
        self.answer = None
        self.torch.cuda.synchronize()
        self.torch.cuda.reset_peak_memory_stats()
        before = self.torch.cuda.memory_allocated()
        self.step()
        self.torch.cuda.synchronize()
        return self.torch.cuda.max_memory_allocated() - before

    def outputs(self):
        loss, feature, mean = (tensor.detach().cpu().numpy() for tensor in self.answer)
        return {"loss": loss, "feature": feature, "mean": mean}


class _Differentiated(_Cuda):
    def __init__(self, engine, data, threads):
        super().__init__(engine, data, threads)
        self.x.requires_grad_()
        self.mean.requires_grad_()

    def step(self):
        self.answer = None
        loss = self.loss(self.x, self.mean, self.z)
        self.answer = (loss, *self.torch.autograd.grad(loss, (self.x, self.mean)))


class CudaSoftmax(_Differentiated):
    def loss(self, x, mean, z):
        functional = self.torch.nn.functional
        return functional.cross_entropy(functional.linear(x, mean), z)


class CudaLiger(_Differentiated):
    """Linear layer and cross entropy in one, in chunks of samples."""

    def __init__(self, engine, data, threads):
        super().__init__(engine, data, threads)
        from liger_kernel.transformers.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyLoss

        self.fused = LigerFusedLinearCrossEntropyLoss()

    def loss(self, x, mean, z):
        return self.fused(mean, x, z)


class CudaProducts(_Cuda):
    """The three products alone, into matrices that are there already."""

    def __init__(self, engine, data, threads):
        super().__init__(engine, data, threads)
        self.logits = self.torch.empty(len(self.x), len(self.mean), device="cuda")
        self.feature, self.mean_gradient = self.torch.empty_like(self.x), self.torch.empty_like(self.mean)

    def step(self):
        mm = self.torch.mm
        mm(self.x, self.mean.T, out=self.logits)
        mm(self.logits, self.mean, out=self.feature)
        mm(self.logits.T, self.x, out=self.mean_gradient)


class CudaLgm(_Cuda):
    form = "fixed"

    def __init__(self, engine, data, threads):
        super().__init__(engine, data, threads)
        empty = lambda *shape: self.torch.empty(shape, device="cuda")
        n, c, d = len(self.x), *self.mean.shape
        arrays = {"features": self.x, "mean": self.mean, "labels": self.z}
        self.out = {"loss": empty(1), "feature": empty(n, d), "mean_gradient": empty(c, d)}
        if self.form != "fixed":
            arrays["log_variance"] = self.torch.from_numpy(data[self.form]).cuda()
            arrays["log_prior"] = self.torch.from_numpy(data["log_prior"]).cuda()
            self.out["log_variance_gradient"] = empty(*data[self.form].shape)
            self.out["log_prior_gradient"] = empty(c)
        self.kept = arrays  # as long as their addresses are
        pointers = {name: tensor.data_ptr() for name, tensor in {**arrays, **self.out}.items()}
        self.problem = _Problem(n, c, d, _FORMS[self.form], ALPHA, LAMBDA, **pointers)
        self.problem.stream = self.torch.cuda.current_stream().cuda_stream
        self.problem.workspace_bytes = engine.library.lgm_compare_cuda_workspace_bytes(ctypes.byref(self.problem))
        self.scratch = self.torch.empty(self.problem.workspace_bytes, dtype=self.torch.uint8, device="cuda")
        self.problem.workspace = self.scratch.data_ptr()

    def step(self):
        failure = self.engine.library.lgm_compare_cuda_forward_backward(ctypes.byref(self.problem))
        if failure:
            raise RuntimeError(failure.decode())

    def memory(self):
        return self.workspace() + sum(tensor.nbytes for tensor in self.out.values())

    def workspace(self):
        return self.problem.workspace_bytes

    def outputs(self):
        self.torch.cuda.synchronize()
        found = {name.removesuffix("_gradient"): tensor.cpu().numpy() for name, tensor in self.out.items()}
        found["loss"] = found["loss"][0]
        return found


class CudaLgmSpherical(CudaLgm):
    form = "spherical"


class CudaLgmDiagonal(CudaLgm):
    form = "diagonal"
