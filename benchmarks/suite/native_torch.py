"""The workloads as a PyTorch program has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.suite.contestant import Steps
from benchmarks.suite.workloads import ADAM, HEADS, NORM, Weights, Workload, batches, blocks, bottlenecks, weights

IMAGES = ("convnet", "resnet", "bottleneck")


def build(w: Workload, variant: str, *, dropout: bool = True) -> Steps:
    """A contestant.

    Args:
        w: The workload.
        variant: ``eager``; ``fused``, its optimizer in one call; ``last``, that with channels last, for images;
            ``compile``, the best of these compiled.
        dropout: Whether dropout is done.
    """
    last = w.kind in IMAGES and variant in ("last", "compile")
    net = loaded(w, w.dropout if dropout else 0.0, last)
    data = [own_form(batch, last) for batch in batches(w)]
    if not w.training:
        net.eval()
        run = torch.compile(net, fullgraph=True) if variant == "compile" else net

        @torch.inference_mode()
        def predict(x: np.ndarray) -> np.ndarray:
            return run(torch.from_numpy(x)).numpy()

        return Steps(predict, [(x.numpy(),) for (x,) in data], np.asarray)
    fused = variant != "eager"
    if w.optimizer == "adam":
        optimizer: Any = torch.optim.Adam(net.parameters(), w.rate, eps=ADAM, fused=fused)
    else:
        optimizer = torch.optim.SGD(net.parameters(), w.rate, 0.9 if w.optimizer == "momentum" else 0, fused=fused)
    criterion = F.mse_loss if w.regression else F.cross_entropy

    def forward(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return criterion(net(x), y)

    if variant == "compile":
        forward = torch.compile(forward, fullgraph=True)

    def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        loss = forward(x, y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return Steps(step, data, torch.Tensor.numpy)


def loaded(w: Workload, rate: float, last: bool) -> Any:
    """The network of a workload with its initial weights.

    Args:
        w: The workload.
        rate: Of dropout.
        last: Whether images have their channels last in memory.
    """
    net = _NETWORKS[w.kind](w, rate)
    _load(net, weights(w))
    return net.to(memory_format=torch.channels_last) if last else net


def own_form(batch: Sequence[np.ndarray], last: bool) -> tuple[torch.Tensor, ...]:
    """Images with their channels first; in memory, too, unless ``last``. Labels as PyTorch wants them."""
    x, *rest = map(torch.from_numpy, batch)
    if x.ndim == 4:
        x = x.permute(0, 3, 1, 2)
        x = x.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    return (x, *(y if y.is_floating_point() else y.long() for y in rest))


# ---- networks -----------------------------------------------------------------------------------------------


class Dense(nn.Module):
    def __init__(self, w: Workload, rate: float) -> None:
        super().__init__()
        pairs = zip(w.sizes[:-1], w.sizes[1:], strict=True)
        for i, (a, b) in enumerate(pairs):
            self.add_module(f"dense{i}", nn.Linear(a, b, bias=not w.regression))
        self.layers = list(self.children())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class ConvNet(nn.Module):
    def __init__(self, w: Workload, rate: float) -> None:
        super().__init__()
        first, second, classes = w.sizes
        size = ((w.shape[0] - 2) // 2 - 2) // 2
        self.flattened = (size, size, second)
        self.conv1, self.conv2 = nn.Conv2d(w.shape[-1], first, 3), nn.Conv2d(first, second, 3)
        self.dropout, self.dense = nn.Dropout(rate), nn.Linear(size * size * second, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.dense(self.dropout(x.flatten(1)))


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=NORM[0])


class Block(nn.Module):
    def __init__(self, before: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(before, filters, 3, stride, 1, bias=False), _norm(filters)
        self.conv2, self.norm2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False), _norm(filters)
        self.shortcut = stride > 1 or before != filters
        if self.shortcut:
            self.conv3, self.norm3 = nn.Conv2d(before, filters, 1, stride, bias=False), _norm(filters)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(y + (self.norm3(self.conv3(x)) if self.shortcut else x))


class ResNet(nn.Module):
    def __init__(self, w: Workload, rate: float) -> None:
        super().__init__()
        self.conv0, self.norm0 = nn.Conv2d(w.shape[-1], w.sizes[0], 3, 1, 1, bias=False), _norm(w.sizes[0])
        for name, before, filters, stride in blocks(w):
            self.add_module(name, Block(before, filters, stride))
        self.blocks = [m for m in self.children() if isinstance(m, Block)]
        self.dense = nn.Linear(w.sizes[3], w.sizes[4])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm0(self.conv0(x)))
        for block in self.blocks:
            x = block(x)
        return self.dense(x.mean((2, 3)))


class Bottleneck(nn.Module):
    def __init__(self, before: int, narrow: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(before, narrow, 1, bias=False), _norm(narrow)
        self.conv2, self.norm2 = nn.Conv2d(narrow, narrow, 3, stride, 1, bias=False), _norm(narrow)
        self.conv3, self.norm3 = nn.Conv2d(narrow, 4 * narrow, 1, bias=False), _norm(4 * narrow)
        self.shortcut = stride > 1 or before != 4 * narrow
        if self.shortcut:
            self.conv4, self.norm4 = nn.Conv2d(before, 4 * narrow, 1, stride, bias=False), _norm(4 * narrow)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        y = self.norm3(self.conv3(F.relu(self.norm2(self.conv2(y)))))
        return F.relu(y + (self.norm4(self.conv4(x)) if self.shortcut else x))


class ResNet50(nn.Module):
    def __init__(self, w: Workload, rate: float) -> None:
        super().__init__()
        self.conv0, self.norm0 = nn.Conv2d(w.shape[-1], w.sizes[0], 7, 2, 3, bias=False), _norm(w.sizes[0])
        for name, before, narrow, stride in bottlenecks(w):
            self.add_module(name, Bottleneck(before, narrow, stride))
        self.blocks = [m for m in self.children() if isinstance(m, Bottleneck)]
        self.dense = nn.Linear(4 * w.sizes[3], w.sizes[4])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.norm0(self.conv0(x))), 3, 2, 1)
        for block in self.blocks:
            x = block(x)
        return self.dense(x.mean((2, 3)))


class Recurrent(nn.Module):
    def __init__(self, w: Workload, rate: float) -> None:
        super().__init__()
        cells = {"lstm": nn.LSTM, "gru": nn.GRU}[w.kind]
        self.cells, self.dense = cells(w.shape[-1], w.sizes[0], batch_first=True), nn.Linear(*w.sizes)
        if w.kind == "lstm":  # whose second bias is one too many: Adam would take each of its steps twice
            self.cells.bias_hh_l0.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dense(self.cells(x)[0][:, -1])


class Attention(nn.Module):
    def __init__(self, width: int, head: int) -> None:
        super().__init__()
        self.project, self.out = nn.Linear(width, 3 * HEADS * head), nn.Linear(HEADS * head, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        q, k, v = self.project(x).view(batch, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).reshape(batch, length, -1))


class Transformer(nn.Module):
    def __init__(self, w: Workload, rate: float) -> None:
        super().__init__()
        words, width, head, inner, hidden, classes = w.sizes
        self.token, self.position = nn.Embedding(words, width), nn.Parameter(torch.empty(w.shape[0], width))
        self.attention, self.dropout = Attention(width, head), nn.Dropout(rate)
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=NORM[1]), nn.LayerNorm(width, eps=NORM[1])
        self.inner1, self.inner2 = nn.Linear(width, inner), nn.Linear(inner, width)
        self.dense1, self.dense2 = nn.Linear(width, hidden), nn.Linear(hidden, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.token(x) + self.position
        x = self.norm1(x + self.dropout(self.attention(x)))
        x = self.norm2(x + self.dropout(self.inner2(F.relu(self.inner1(x)))))
        x = self.dropout(x.mean(1))
        return self.dense2(self.dropout(F.relu(self.dense1(x))))


_NETWORKS: dict[str, type[nn.Module]] = {
    "dense": Dense, "convnet": ConvNet, "resnet": ResNet, "bottleneck": ResNet50, "lstm": Recurrent,
    "gru": Recurrent, "transformer": Transformer,
}  # fmt: skip

# ---- weights ------------------------------------------------------------------------------------------------


@torch.no_grad()
def _load(net: Any, given: Weights) -> None:
    for name, arrays in given.items():
        if name == "embed":
            targets, found = [net.token.weight, net.position], list(arrays)
        else:
            module = net.get_submodule(name.replace("_", "."))
            targets, found = _targets(module), _arranged(net, module, arrays)
        for target, array in zip(targets, found, strict=True):
            assert target.shape == array.shape, name
            target.copy_(torch.from_numpy(np.ascontiguousarray(array)))


def _targets(module: Any) -> list[torch.Tensor]:
    if isinstance(module, nn.BatchNorm2d):
        return [module.weight, module.bias, module.running_mean, module.running_var]
    return list(module.parameters())


def _arranged(net: Any, module: Any, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Weights of a layer as PyTorch lays them out."""
    kernel, *rest = arrays
    if isinstance(module, Attention):
        *parts, out, bias = arrays
        width = out.shape[-1]
        kernels = [k.reshape(width, -1) for k in parts[::2]]
        joined = np.concatenate(kernels, 1).T, np.concatenate([b.ravel() for b in parts[1::2]])
        return [*joined, out.reshape(-1, width).T, bias]
    if isinstance(module, nn.Conv2d):
        return [kernel.transpose(3, 2, 0, 1), *rest]
    if isinstance(module, nn.LSTM):
        return [kernel.T, rest[0].T, rest[1], np.zeros_like(rest[1])]
    if isinstance(module, nn.GRU):  # reset before update, here

        def swapped(a: np.ndarray) -> np.ndarray:
            z, r, n = np.split(a, 3, -1)
            return np.concatenate([r, z, n], -1)

        return [swapped(kernel).T, swapped(rest[0]).T, *map(swapped, rest[1])]
    if isinstance(module, nn.Linear):
        if isinstance(net, ConvNet):  # which flattens channels first
            kernel = kernel.reshape(*net.flattened, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
        return [kernel.T, *rest]
    return list(arrays)
