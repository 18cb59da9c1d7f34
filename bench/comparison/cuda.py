# SPDX-License-Identifier: MIT
"""What is measured on a CUDA device: PyTorch's heads, liger-kernel's where it is installed, and lgm, on the same arrays,
each in several modes. Each step is timed by CUDA events, with the second-level cache emptied before."""

import ctypes
import dataclasses
import importlib.util

from comparison.problem import ALPHA, LAMBDA

_FORMS = {"fixed": 0, "spherical": 1, "diagonal": 2}


_HIGHEST, _SPLIT_TF32, _TF32, _FAST = range(4)  # as lgm::precision


@dataclasses.dataclass(frozen=True)
class Mode:
    """The types of a contender's arrays, how it makes products, and how far from float64 its results may be."""

    suffix: str
    title: str
    operands: str  # what is multiplied: of a peer the same
    precision: int  # lgm's
    # As include/lgm/README.md's table has them: losses absolute, gradients as a share of the largest.
    loss: float
    gradient: float
    rounded_once: bool = False  # means too: the tolerance of gradients grows with what classes are apart
    features: str = "float32"  # and their gradients
    weights: str = "float32"  # lgm's means always are

    @property
    def autocast(self):
        """PyTorch takes mixed types no other way."""
        return self.features != self.weights

    def tolerance(self, apart):
        """(of the loss, of gradients), with classes so many deviations apart in each dimension."""
        return self.loss, self.gradient * (max(1, apart) if self.rounded_once else 1)

    def is_peer(self, other):
        """Whether a contender of the other mode is what one of this mode is measured against."""
        # Split TF32 is as accurate as float.
        return self.operands == other.operands or (self is SPLIT_TF32 and other is FLOAT)


FLOAT = Mode("", "", "float", _HIGHEST, 5e-4, 1e-3)
SPLIT_TF32 = Mode("-split-tf32", "split TF32", "tf32", _SPLIT_TF32, 5e-4, 1e-3)
TF32 = Mode("-tf32", "TF32", "tf32", _TF32, 5e-3, 5e-3, rounded_once=True)
BFLOAT16 = Mode("-bf16", "bfloat16", "bfloat16", _HIGHEST, 2e-3, 3e-2, features="bfloat16")
BFLOAT16_FAST = Mode(
    "-bf16-fast", "fast bfloat16", "bfloat16", _FAST, 5e-2, 3e-2, rounded_once=True, features="bfloat16"
)
# Of others than lgm, which all round weights once.
BFLOAT16_AUTOCAST = dataclasses.replace(BFLOAT16_FAST, suffix="-bf16-autocast", title="bfloat16 by autocast")
BFLOAT16_WEIGHTS = dataclasses.replace(BFLOAT16_FAST, suffix="-bf16", title="bfloat16", weights="bfloat16")


class _Problem(ctypes.Structure):
    # As in compare_lgm_cuda.cpp.
    _fields_ = (
        [(name, ctypes.c_int64) for name in ("samples", "classes", "dims")]
        + [(name, ctypes.c_int32) for name in ("covariance", "precision", "bfloat16")]
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


class CudaEngine:
    """PyTorch on its current stream, and the library, where its path is given."""

    inputs = ("features", "mean", "labels", "spherical", "diagonal", "log_prior")

    def __init__(self, library=None):
        import torch

        self.torch, self.path, self._library = torch, library, None
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
    def __init__(self, engine, data, threads, mode):
        """data: of NumPy, or of PyTorch on the device."""
        self.engine, self.torch, self.mode = engine, engine.torch, mode
        self.x = self.on_device(data["features"]).to(getattr(self.torch, mode.features))
        self.mean = self.on_device(data["mean"]).to(getattr(self.torch, mode.weights))
        self.z = self.on_device(data["labels"])
        self.answer = None

    @staticmethod
    def is_offered():
        return True

    def on_device(self, array):
        return self.torch.as_tensor(array, device="cuda")

    def prepare(self):
        """Before steps of this contender: one process has contenders of all modes."""
        self.torch.backends.cuda.matmul.allow_tf32 = self.mode is TF32

    def use_current_stream(self):
        pass

    def run(self, times):
        self.prepare()
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
        loss, feature, mean = (tensor.detach().float().cpu().numpy() for tensor in self.answer)
        return {"loss": loss, "feature": feature, "mean": mean}


class _Differentiated(_Cuda):
    def __init__(self, engine, data, threads, mode):
        super().__init__(engine, data, threads, mode)
        # Leaves of their own: the arrays may be other contenders' too.
        self.x = self.x.detach().requires_grad_()
        self.mean = self.mean.detach().requires_grad_()

    def step(self):
        self.answer = None
        with self.torch.autocast(self.x.device.type, self.torch.bfloat16, enabled=self.mode.autocast):
            loss = self.loss(self.x, self.mean, self.z)
        self.answer = (loss, *self.torch.autograd.grad(loss, (self.x, self.mean)))


class CudaSoftmax(_Differentiated):
    def loss(self, x, mean, z):
        functional = self.torch.nn.functional
        return functional.cross_entropy(functional.linear(x, mean), z)


class CudaSoftmaxCompiled(CudaSoftmax):
    def __init__(self, engine, data, threads, mode):
        super().__init__(engine, data, threads, mode)
        # What was compiled for another shape would make this one's sizes unknown to the compiler.
        self.torch._dynamo.reset()
        self.loss = self.torch.compile(self.loss, dynamic=False)


class CudaLinearCrossEntropy(_Differentiated):
    """PyTorch's own linear layer and cross entropy in one, in chunks of samples; since 2.13."""

    @staticmethod
    def is_offered():
        import torch

        return hasattr(torch.nn, "LinearCrossEntropyOptions")

    def loss(self, x, mean, z):
        options = self.torch.nn.LinearCrossEntropyOptions()
        return self.torch.nn.functional.linear_cross_entropy(x, mean, z, options=options)


class CudaLiger(_Differentiated):
    """Linear layer and cross entropy in one, in chunks of samples."""

    @staticmethod
    def is_offered():
        return importlib.util.find_spec("liger_kernel") is not None

    def __init__(self, engine, data, threads, mode):
        super().__init__(engine, data, threads, mode)
        from liger_kernel.transformers.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyLoss

        self.fused = LigerFusedLinearCrossEntropyLoss()

    def loss(self, x, mean, z):
        return self.fused(mean, x, z)


class CudaProducts(_Cuda):
    """The three products alone, into matrices that are there already."""

    def __init__(self, engine, data, threads, mode):
        super().__init__(engine, data, threads, mode)
        self.logits = self.x.new_empty(len(self.x), len(self.mean))
        self.feature, self.mean_gradient = self.torch.empty_like(self.x), self.torch.empty_like(self.mean)

    def step(self):
        mm = self.torch.mm
        mm(self.x, self.mean.T, out=self.logits)
        mm(self.logits, self.mean, out=self.feature)
        mm(self.logits.T, self.x, out=self.mean_gradient)


class CudaLgm(_Cuda):
    form = "fixed"

    def __init__(self, engine, data, threads, mode):
        super().__init__(engine, data, threads, mode)
        empty = lambda *shape: self.torch.empty(shape, device="cuda")
        n, c, d = len(self.x), *self.mean.shape
        arrays = {"features": self.x, "mean": self.mean, "labels": self.z}
        self.out = {"loss": empty(1), "feature": self.torch.empty_like(self.x), "mean_gradient": empty(c, d)}
        if self.form != "fixed":
            arrays["log_variance"] = self.on_device(data[self.form])
            arrays["log_prior"] = self.on_device(data["log_prior"])
            self.out["log_variance_gradient"] = empty(*data[self.form].shape)
            self.out["log_prior_gradient"] = empty(c)
        self.kept = arrays  # as long as their addresses are
        pointers = {name: tensor.data_ptr() for name, tensor in {**arrays, **self.out}.items()}
        narrow = mode.features == "bfloat16"
        self.problem = _Problem(n, c, d, _FORMS[self.form], mode.precision, narrow, ALPHA, LAMBDA, **pointers)
        self.use_current_stream()
        self.problem.workspace_bytes = engine.library.lgm_compare_cuda_workspace_bytes(ctypes.byref(self.problem))
        self.scratch = self.torch.empty(self.problem.workspace_bytes, dtype=self.torch.uint8, device="cuda")
        self.problem.workspace = self.scratch.data_ptr()

    def use_current_stream(self):
        self.problem.stream = self.torch.cuda.current_stream().cuda_stream

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
        found = {name.removesuffix("_gradient"): tensor.float().cpu().numpy() for name, tensor in self.out.items()}
        found["loss"] = found["loss"][0]
        return found


class CudaLgmSpherical(CudaLgm):
    form = "spherical"


class CudaLgmDiagonal(CudaLgm):
    form = "diagonal"
