# SPDX-License-Identifier: MIT
"""What surrounds the loss in PyTorch: autocast and GradScaler, torch.compile, torch.export, DistributedDataParallel."""
import copy
import io
import math

import pytest
import torch
from plain import COVARIANCES, near
from torch import nn

from lgm_torch import LGMLoss, Moments, Score, SteppedSchedule


class Net(nn.Module):
    """A layer under a head; its forward is the loss."""

    def __init__(self, **options):
        super().__init__()
        torch.manual_seed(1)
        self.layer = nn.Linear(6, 5)
        self.head = LGMLoss(5, 7, lambda_=0.1, **options)

    def forward(self, x, target, normalizer=None):
        return self.head(self.layer(x), target, normalizer=normalizer)


def batch(samples=12):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(samples, 6, generator=generator), torch.randint(7, (samples,), generator=generator)


def gradients(net):
    return [parameter.grad.clone() for parameter in net.parameters()]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype):
    net = Net(covariance="diagonal", learn_prior=True)
    x, target = batch()
    with torch.autocast("cpu", dtype):
        features = net.layer(x)
        features.retain_grad()
        loss = net.head(features, target)
        soft = net.head(features, torch.full((12, 7), 1 / 7, dtype=dtype))
        score = net.head.score(features)
    assert features.dtype == dtype and loss.dtype == soft.dtype == score.log_mixture.dtype == torch.float32
    loss.backward()
    single = features.detach().float().requires_grad_()
    expected = net.head(single, target)
    assert torch.equal(loss, expected)
    assert torch.equal(features.grad, torch.autograd.grad(expected, single)[0].to(dtype))
    near(soft, net.head(single, torch.full((12, 7), 1 / 7)), 1e-2)


def test_grad_scaler():
    net = Net(alpha=0.1)
    optimizer = torch.optim.SGD(net.parameters(), 0.05)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    x, target = batch()
    losses = []
    for step in range(30):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            # Once a feature that float16 does not hold.
            loss = net(x * (1e30 if step == 7 else 1), target)
        before = net.head.mean.detach().clone()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        assert torch.equal(before, net.head.mean) == (step == 7)
        losses.append(loss.item())
    assert not math.isfinite(losses.pop(7))
    assert scaler.get_scale() == 2.0**9 and losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_compile(covariance):
    """In one graph, forward and backward, with the bits of eager; one compilation for all margins and batch sizes."""
    schedule = SteppedSchedule("add_up", value=0.1, step=1, gamma=0.1)
    net = Net(alpha=schedule, covariance=covariance, learn_prior=True)
    torch._dynamo.reset()
    compiled = torch.compile(net, fullgraph=True, dynamic=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for samples in (12, 12, 9):
            x, target = batch(samples)
            results = []
            for function in (net, compiled):
                net.zero_grad()
                loss = function(x, target)
                loss.backward()
                results.append([loss.detach(), *gradients(net)])
            for a, b in zip(*results, strict=True):
                near(a, b, 1e-6)
            net.head.step()
    assert net.head.alpha.item() == pytest.approx(0.4)


def test_compile_other_calls():
    head = LGMLoss(6, 7, alpha=0.2, reduction="none", class_weight=torch.rand(7), label_smoothing=0.1)
    x, target = batch()
    weight = torch.rand(12)

    def everything(x, target, soft, weight):
        return head(x, target, weight), head(x, soft), head.logits(x, target), head.score(x)

    values = (x, target, torch.full((12, 7), 1 / 7), weight)
    mine, expected = torch.compile(everything, fullgraph=True)(*values), everything(*values)
    for a, b in zip(*map(torch.utils._pytree.tree_leaves, (mine, expected)), strict=True):
        torch.testing.assert_close(a, b)


class Scoring(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.layer, self.head = net.layer, net.head

    def forward(self, x):
        return self.head.score(self.layer(x))


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_export(covariance):
    """Scoring, for batches of any size, through a file."""
    model = Scoring(Net(covariance=covariance)).eval()
    x, _ = batch()
    program = torch.export.export(model, (x,), dynamic_shapes={"x": {0: torch.export.Dim("samples")}})
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for samples in (12, 5):
        x, _ = batch(samples)
        mine, expected = loaded(x), model(x)
        assert isinstance(mine, Score)
        for a, b in zip(mine, expected, strict=True):
            assert torch.equal(a, b)


def test_copies():
    net = Net(alpha=SteppedSchedule("ramp", step=5, max=0.4), learn_prior=True)
    x, target = batch()
    assert torch.equal(copy.deepcopy(net)(x, target), net(x, target))
    double = copy.deepcopy(net).double()
    near(double(x.double(), target).float(), net(x, target), 1e-6)
    assert double.head.alpha.dtype == torch.float64 and double.head.iteration.dtype == torch.int64
    double.head.step()
    assert double.head.alpha.item() == pytest.approx(0.08, abs=1e-15)


def parallel_worker(rank, file, results):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    x, target = parallel_batch()
    mine = slice(0, 12) if rank == 0 else slice(12, None)  # of different sizes, and with different numbers ignored
    x, target = x[mine], target[mine]
    found = {}
    for covariance in COVARIANCES:
        net = Net(alpha=0.2, covariance=covariance, learn_prior=True, class_weight=torch.linspace(1, 2, 7)).double()
        parallel = nn.parallel.DistributedDataParallel(net)
        normalizer = net.head.global_normalizer(target)
        loss = parallel(x, target, normalizer)
        loss.backward()
        torch.distributed.all_reduce(loss)
        found[covariance] = [loss.detach() / 2, *gradients(net)]
    moments = Moments(6, 7)
    moments.update(x, target)
    moments.all_reduce()
    found["moments"] = list(moments._tensors())
    torch.save(found, f"{results}.{rank}")
    torch.distributed.destroy_process_group()


def parallel_batch():
    x, target = batch(20)
    target[[3, 5, 15]] = -100
    return x.double() + 100, target


def test_distributed(tmp_path):
    """Two processes have the loss and the gradients of one that sees the whole batch, and both its moments."""
    torch.multiprocessing.spawn(parallel_worker, (tmp_path / "rendezvous", tmp_path / "found"), nprocs=2)
    found = [torch.load(tmp_path / f"found.{rank}") for rank in (0, 1)]
    x, target = parallel_batch()
    for covariance in COVARIANCES:
        net = Net(alpha=0.2, covariance=covariance, learn_prior=True, class_weight=torch.linspace(1, 2, 7)).double()
        loss = net(x, target)
        loss.backward()
        expected = [loss.detach(), *gradients(net)]
        for one, other, whole in zip(*(each[covariance] for each in found), expected, strict=True):
            assert torch.equal(one, other)
            near(one, whole, 1e-12)
    merged, second, whole = Moments(6, 7), Moments(6, 7), Moments(6, 7)
    merged.update(x[:12], target[:12])
    second.update(x[12:], target[12:])
    merged.merge(second)
    whole.update(x, target)
    for one, other, here in zip(*(each["moments"] for each in found), merged._tensors(), strict=True):
        assert torch.equal(one, other) and torch.equal(one, here)
    for here, all_at_once in zip(merged._tensors()[:3], whole._tensors()[:3], strict=True):
        near(here, all_at_once, 1e-13)
