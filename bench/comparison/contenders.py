# SPDX-License-Identifier: MIT
"""What is measured. A contender is a class with a line in CONTENDERS; it lives in a worker process of its engine.

A new one (another library, another device) adds a class here: its constructor takes the arrays of problem.make and may
allocate, run(times) answers a list of seconds, outputs() the arrays that its reference has.
"""

import ctypes
import dataclasses
import functools
import glob
import os
import sys
import time

import numpy as np

from comparison import cuda
from comparison.problem import ALPHA, LAMBDA

# ---- lgm ----

_FORMS = {"fixed": 0, "spherical": 1, "diagonal": 2}


class _Problem(ctypes.Structure):
    _fields_ = (
        [(name, ctypes.c_int64) for name in ("samples", "classes", "dims")]
        + [(name, ctypes.c_int32) for name in ("covariance", "threads")]
        + [(name, ctypes.c_float) for name in ("alpha", "lambda_")]
        + [
            (name, ctypes.c_void_p)
            for name in (
                "features",
                "mean",
                "log_variance",
                "log_prior",
                "labels",
                "loss",
                "feature",
                "mean_gradient",
                "log_variance_gradient",
                "log_prior_gradient",
                "logits",
            )
        ]
    )


@functools.cache
def lgm_library(path):
    library = ctypes.CDLL(path)
    library.lgm_compare_open.restype = ctypes.c_void_p
    library.lgm_compare_workspace_bytes.restype = ctypes.c_int64
    library.lgm_compare_run.restype = ctypes.c_char_p
    library.lgm_compare_build.restype = ctypes.c_char_p
    return library


@dataclasses.dataclass(frozen=True)
class Blas:
    """A library that may be at hand: where to look for it, how its functions are called, and the environment that its
    process needs."""

    title: str
    source: str
    files: tuple
    set_threads: str
    version: str  # a function that answers text, or writes it
    prefix: str = ""
    set_callback: str = ""  # has its threads replaced by others
    environment: dict = dataclasses.field(default_factory=dict)

    def find(self):
        for pattern in self.files:
            for path in sorted(glob.glob(pattern)):
                return os.path.realpath(path)
        return None


_SITE = os.path.join(sys.prefix, "lib", "python*", "site-packages")
_SYSTEM = "/usr/lib/*-linux-gnu"
# A core named in the environment keeps OpenBLAS from the processor's widest vectors. What it computes with the core
# that it finds itself is checked like everything else.
_OWN_CORE = {"OPENBLAS_CORETYPE": None, "OPENBLAS_L2_SIZE": None}
# With threads of its own beside OpenMP's: while those spin, waiting for lgm's next loop, they keep OpenBLAS's from the
# cores, and a step takes from twice to a hundred times as long, unless OpenMP's sleep at once and are woken for every
# loop. A BLAS on the same OpenMP threads has neither trouble; since 0.3.28 OpenBLAS can be put on them at run time.
_OPENBLAS = dict(set_threads="openblas_set_num_threads", version="openblas_get_config")
_SLEEPING = {**_OWN_CORE, "OMP_WAIT_POLICY": "passive"}
BLASES = {
    "mkl": Blas(
        "MKL",
        "PyPI: mkl",
        (f"{sys.prefix}/lib/libmkl_rt.so.*",),
        "MKL_Set_Num_Threads",
        "MKL_Get_Version_String",
        environment={"MKL_THREADING_LAYER": "GNU", "MKL_INTERFACE_LAYER": "LP64", "MKL_DYNAMIC": "FALSE"},
    ),
    "openblas": Blas(
        "OpenBLAS",
        "PyPI: scipy-openblas32",
        (f"{_SITE}/scipy_openblas32/lib/libscipy_openblas.so",),
        prefix="scipy_",
        set_callback="openblas_set_threads_callback_function",
        environment=_OWN_CORE,
        **_OPENBLAS,
    ),
    "openblas-system": Blas(
        "system OpenBLAS",
        "Debian: libopenblas0-pthread",
        (f"{_SYSTEM}/openblas-pthread/libopenblas.so.0",),
        environment=_SLEEPING,
        **_OPENBLAS,
    ),
    "openblas-openmp": Blas(
        "system OpenBLAS on OpenMP",
        "Debian: libopenblas0-openmp",
        (f"{_SYSTEM}/openblas-openmp/libopenblas.so.0",),
        environment=_OWN_CORE,
        **_OPENBLAS,
    ),
    "blis": Blas(
        "BLIS",
        "Debian: libblis4-openmp",
        (f"{_SYSTEM}/blis-openmp/libblis.so.*", f"{_SYSTEM}/blis-pthread/libblis.so.*"),
        "bli_thread_set_num_threads",
        "bli_info_get_version_str",
    ),
}


class _LoadedBlas:
    def __init__(self, blas, run_pieces):
        self.library = ctypes.CDLL(blas.find(), mode=ctypes.RTLD_GLOBAL)
        if blas.set_callback:
            getattr(self.library, blas.prefix + blas.set_callback)(run_pieces)
        self.sgemm, self.dgemm = (
            ctypes.cast(getattr(self.library, f"{blas.prefix}cblas_{letter}gemm"), ctypes.c_void_p) for letter in "sd"
        )
        self.set_threads = getattr(self.library, blas.prefix + blas.set_threads)
        self.version = getattr(self.library, blas.prefix + blas.version)

    def version_text(self):
        buffer = ctypes.create_string_buffer(256)
        self.version.restype = ctypes.c_void_p
        answer = self.version(buffer, len(buffer) - 1)  # who takes no arguments does not look at them
        return (buffer.value or ctypes.string_at(answer)).decode().strip()


class LgmEngine:
    """Loads the library and, for its products, a BLAS. Its contenders write their results to the same memory."""

    inputs = ("features", "mean", "labels", "spherical", "diagonal", "log_prior")

    def __init__(self, library, blas=None):
        self.library = lgm_library(library)
        self.buffers = {}
        self.blas = None
        if blas is not None:
            self.blas = _LoadedBlas(BLASES[blas], self.library.lgm_compare_run_pieces)
            self.library.lgm_compare_use_blas(self.blas.sgemm, self.blas.dgemm)

    def loaded(self):
        self.buffers.clear()

    def buffer(self, name, *shape):
        return self.buffers.setdefault((name, shape), np.zeros(shape, np.float32))

    def versions(self):
        found = {"lgm": self.library.lgm_compare_build().decode()}
        if self.blas is not None:
            found["BLAS"] = self.blas.version_text()
        return found


class Lgm:
    subject = "forward_backward"
    form = "fixed"

    def __init__(self, engine, data, threads):
        self.engine, self.threads = engine, threads
        c, d = data["mean"].shape
        n = len(data["labels"])
        arrays = {name: data[name] for name in ("features", "mean", "labels")}
        wanted = {"loss": (1,), "feature": (n, d), "mean_gradient": (c, d)}
        if self.form != "fixed":
            arrays.update(log_variance=data[self.form], log_prior=data["log_prior"])
            wanted.update(log_variance_gradient=data[self.form].shape, log_prior_gradient=(c,))
        self.out = {name: engine.buffer(name, *shape) for name, shape in wanted.items()}
        if self.subject.startswith("product"):
            arrays["logits"] = engine.buffer("logits", n, c)
        pointers = {name: array.ctypes.data for name, array in {**arrays, **self.out}.items()}
        self.problem = _Problem(n, c, d, _FORMS[self.form], threads, ALPHA, LAMBDA, **pointers)
        self.handle = ctypes.c_void_p(engine.library.lgm_compare_open(ctypes.byref(self.problem)))

    def run(self, times):
        if self.engine.blas is not None:
            self.engine.blas.set_threads(self.threads)
        seconds = (ctypes.c_double * times)()
        failure = self.engine.library.lgm_compare_run(self.handle, self.subject.encode(), times, seconds)
        if failure:
            raise RuntimeError(failure.decode())
        return list(seconds)

    def outputs(self):
        found = {"loss": self.out["loss"][0]}
        found.update({name.removesuffix("_gradient"): array for name, array in self.out.items() if name != "loss"})
        return found

    def memory(self):
        """Bytes beyond the inputs: workspace and outputs. The library takes none of its own."""
        if self.subject != "forward_backward":
            return None
        return self.workspace() + sum(array.nbytes for array in self.out.values())

    def workspace(self):
        return self.engine.library.lgm_compare_workspace_bytes(self.handle)

    def __del__(self):
        self.engine.library.lgm_compare_close(self.handle)


class LgmSpherical(Lgm):
    form = "spherical"


class LgmDiagonal(Lgm):
    form = "diagonal"


class LgmFiltered(Lgm):
    """Without the classes that float's rounding of a probability would not notice."""

    subject = "filtered"


class LgmScore(Lgm):
    subject = "score"


class LgmMoments(Lgm):
    subject = "moments"


class Memory(Lgm):
    subject = "memory"


class Products(Lgm):
    subject = "products"


class Product(Lgm):
    subject = "product"


# ---- PyTorch ----


class TorchEngine:
    inputs = ("features", "mean", "labels")

    def __init__(self, memory_limit=None):
        import torch

        self.torch, self.memory_limit = torch, memory_limit

    def loaded(self):
        """From here on allocations beyond the limit fail; what the process has already does not count."""
        import resource

        if self.memory_limit is None:
            return
        with open("/proc/self/status") as status:
            used = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData"))
        resource.setrlimit(resource.RLIMIT_DATA, (used + self.memory_limit, resource.RLIM_INFINITY))

    def versions(self):
        config = self.torch.__config__.show()
        blas = next((line.strip(" -") for line in config.splitlines() if "Math Kernel" in line), "")
        return {
            "torch": self.torch.__version__,
            "torch's BLAS": blas,
            "torch's vectors": self.torch.backends.cpu.get_cpu_capability(),
        }


class _Torch:
    compiled = False

    def __init__(self, engine, data, threads):
        self.torch, self.threads = engine.torch, threads
        self.torch.set_num_threads(threads)
        tensor = self.torch.from_numpy
        self.x, self.mean, self.z = tensor(data["features"]), tensor(data["mean"]), tensor(data["labels"])
        self.x.requires_grad_()
        self.mean.requires_grad_()
        self.answer = None
        if self.compiled:
            # What was compiled for another shape would make this one's sizes unknown to the compiler.
            self.torch._dynamo.reset()
            self.loss = self.torch.compile(self.loss, dynamic=False)

    def step(self):
        # Fresh gradients, not added to what is there: what lgm does too.
        self.answer = None
        loss = self.loss(self.x, self.mean, self.z)
        self.answer = (loss.detach(), *self.torch.autograd.grad(loss, (self.x, self.mean)))

    def run(self, times):
        self.torch.set_num_threads(self.threads)
        seconds = []
        for _ in range(times):
            begin = time.perf_counter()
            self.step()
            seconds.append(time.perf_counter() - begin)
        return seconds

    def outputs(self):
        loss, feature, mean = self.answer
        return {"loss": loss.numpy(), "feature": feature.numpy(), "mean": mean.numpy()}


class TorchSoftmax(_Torch):
    def loss(self, x, mean, z):
        functional = self.torch.nn.functional
        return functional.cross_entropy(functional.linear(x, mean), z)


class _TorchLgm(_Torch):
    def loss(self, x, mean, z):
        distance = self.distance(x, mean)
        target = distance.gather(1, z[:, None])
        logits = -distance.scatter(1, z[:, None], (1 + ALPHA) * target)
        return self.torch.nn.functional.cross_entropy(logits, z) + LAMBDA * target.mean()


class TorchExpanded(_TorchLgm):
    def distance(self, x, mean):
        return 0.5 * (x.square().sum(1, keepdim=True) - 2 * x @ mean.T + mean.square().sum(1))


class TorchBroadcast(_TorchLgm):
    def distance(self, x, mean):
        return 0.5 * (x[:, None] - mean[None]).square().sum(2)


class TorchSoftmaxCompiled(TorchSoftmax):
    compiled = True


class TorchExpandedCompiled(TorchExpanded):
    compiled = True


class TorchBroadcastCompiled(TorchBroadcast):
    compiled = True


class TorchProducts(_Torch):
    """The three products alone, into matrices that are there already."""

    def __init__(self, engine, data, threads):
        super().__init__(engine, data, threads)
        self.x, self.mean = self.x.detach(), self.mean.detach()
        self.logits = self.torch.empty(len(self.x), len(self.mean))
        self.feature, self.mean_gradient = self.torch.empty_like(self.x), self.torch.empty_like(self.mean)

    def step(self):
        mm = self.torch.mm
        mm(self.x, self.mean.T, out=self.logits)
        mm(self.logits, self.mean, out=self.feature)
        mm(self.logits.T, self.x, out=self.mean_gradient)


# ---- the list ----


@dataclasses.dataclass(frozen=True)
class Contender:
    title: str
    make: type
    engine: str  # "eigen", "blas", "torch" or "cuda"
    reference: str = ""  # of problem.py: what it has to agree with
    threads: int = 0  # 0: as many as all
    # In its own process under the memory limit: contenders that may take very much.
    limited: bool = False
    group: str = "main"
    mode: cuda.Mode = None  # of those on a CUDA device

    def made(self, engine, data, threads):
        of_mode = {} if self.mode is None else {"mode": self.mode}
        return self.make(engine, data, self.threads or threads, **of_mode)

    @property
    def expected(self):
        """Which reference, and the type of features that it is of."""
        return self.reference, "float32" if self.mode is None else self.mode.features


_MAIN = {
    "softmax": Contender("PyTorch softmax", TorchSoftmax, "torch", "softmax"),
    "softmax-compiled": Contender("PyTorch softmax, compiled", TorchSoftmaxCompiled, "torch", "softmax"),
    "expanded": Contender("PyTorch L-GM expanded", TorchExpanded, "torch", "fixed"),
    "expanded-compiled": Contender("PyTorch L-GM expanded, compiled", TorchExpandedCompiled, "torch", "fixed"),
    "broadcast": Contender("PyTorch L-GM broadcast", TorchBroadcast, "torch", "fixed", limited=True),
    "broadcast-compiled": Contender(
        "PyTorch L-GM broadcast, compiled", TorchBroadcastCompiled, "torch", "fixed", limited=True
    ),
    "lgm": Contender("lgm", Lgm, "eigen", "fixed"),
    "lgm-blas": Contender("lgm on BLAS", Lgm, "blas", "fixed"),
    "products": Contender("products, lgm's own", Products, "eigen"),
    "products-blas": Contender("products, BLAS", Products, "blas"),
    "products-torch": Contender("products, PyTorch", TorchProducts, "torch"),
}
_MORE = {
    "spherical": ("spherical", LgmSpherical, "spherical", 0),
    "diagonal": ("diagonal", LgmDiagonal, "diagonal", 0),
    "filtered": ("filtered", LgmFiltered, "fixed", 0),
    "score": ("score", LgmScore, "", 0),
    "product": ("one product", Product, "", 0),
    "moments": ("moments", LgmMoments, "", 0),
    "memory": ("memory", Memory, "", 0),
    "one-thread": ("1 thread", Lgm, "", 1),
    "products-one-thread": ("products, 1 thread", Products, "", 1),
}
CONTENDERS = dict(_MAIN)
for _engine, _prefix, _title in (("eigen", "lgm-", "lgm"), ("blas", "lgm-blas-", "lgm on BLAS")):
    for _name, (_what, _make, _reference, _threads) in _MORE.items():
        if _engine == "blas" and _make in (LgmMoments, Memory):
            continue  # without any product
        CONTENDERS[_prefix + _name] = Contender(
            f"{_title}, {_what}", _make, _engine, _reference, _threads, group="more"
        )
# Offered where PyTorch has a device.
_PEER_MODES = cuda.FLOAT, cuda.TF32, cuda.BFLOAT16_WEIGHTS, cuda.BFLOAT16_AUTOCAST
_LGM_MODES = cuda.FLOAT, cuda.SPLIT_TF32, cuda.TF32, cuda.BFLOAT16, cuda.BFLOAT16_FAST
for _name, _title, _make, _reference, _modes in (
    ("softmax", "PyTorch softmax", cuda.CudaSoftmax, "softmax", _PEER_MODES),
    ("softmax-compiled", "PyTorch softmax, compiled", cuda.CudaSoftmaxCompiled, "softmax", _PEER_MODES),
    ("linear-ce", "PyTorch linear_cross_entropy", cuda.CudaLinearCrossEntropy, "softmax", _PEER_MODES),
    ("liger", "liger-kernel softmax", cuda.CudaLiger, "softmax", _PEER_MODES),
    ("lgm", "lgm", cuda.CudaLgm, "fixed", _LGM_MODES),
    ("lgm-spherical", "lgm, spherical", cuda.CudaLgmSpherical, "spherical", (cuda.FLOAT,)),
    ("lgm-diagonal", "lgm, diagonal", cuda.CudaLgmDiagonal, "diagonal", (cuda.FLOAT,)),
    ("products", "products", cuda.CudaProducts, "", (cuda.FLOAT, cuda.TF32, cuda.BFLOAT16_WEIGHTS)),
):
    for _mode in _modes:
        CONTENDERS[f"cuda-{_name}{_mode.suffix}"] = Contender(
            ", ".join(filter(None, (_title, "CUDA", _mode.title))), _make, "cuda", _reference, group="cuda", mode=_mode
        )
