"""The workloads as a JAX program has them: a pure step under ``jit``, its state donated."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.suite.contestant import Steps
from benchmarks.suite.workloads import ADAM, NORM, Workload, batches, blocks, weights

LAYOUT = ("NHWC", "HWIO", "NHWC")
MOVING = slice(2, None)  # what of a batch normalization's arrays is not trained


def build(w: Workload, variant: str = "jit", *, dropout: bool = True) -> Steps:
    """A contestant. ``variant`` has one value, ``jit``; ``dropout`` says whether dropout is done."""
    rate = w.dropout if dropout else 0.0
    all_weights = {name: list(map(jnp.array, arrays)) for name, arrays in weights(w).items()}
    moving = {name: arrays[MOVING] for name, arrays in all_weights.items() if w.kind == "resnet" and "norm" in name}
    params = {name: arrays[:2] if name in moving else arrays for name, arrays in all_weights.items()}
    network, data = _NETWORKS[w.kind], batches(w)
    if not w.training:
        forward = jax.jit(lambda params, moving, x: network(w, params, moving, x, 0.0, None)[0])
        return Steps(lambda x: np.asarray(forward(params, moving, x)), data, np.asarray)
    zeros = [jax.tree.map(jnp.zeros_like, params) for _ in range({"adam": 2, "momentum": 1, "sgd": 0}[w.optimizer])]

    def step(state: Any, x: jax.Array, y: jax.Array) -> Any:
        params, moving, slots, count = state
        key = jax.random.fold_in(jax.random.key(0), count)

        def objective(params: Any) -> Any:
            outputs, new = network(w, params, moving, x, rate, key)
            if w.regression:
                return jnp.mean(jnp.square(outputs - y)), new
            return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(outputs), y[:, None], 1)), new

        (loss, moving), found = jax.value_and_grad(objective, has_aux=True)(params)
        params, slots = _OPTIMIZERS[w.optimizer](params, found, slots, count + 1, w.rate)
        return (params, moving, slots, count + 1), loss

    compiled = jax.jit(step, donate_argnums=0)
    state: Any = (params, moving, zeros, jnp.zeros((), jnp.int32))

    def run(x: jax.Array, y: jax.Array) -> jax.Array:
        nonlocal state
        state, loss = compiled(state, x, y)
        return loss

    return Steps(run, [tuple(map(jnp.asarray, batch)) for batch in data], np.asarray)


# ---- optimizers ---------------------------------------------------------------------------------------------


def _sgd(params: Any, found: Any, slots: Any, count: Any, rate: float) -> Any:
    return jax.tree.map(lambda p, g: p - rate * g, params, found), slots


def _momentum(params: Any, found: Any, slots: Any, count: Any, rate: float) -> Any:
    (velocity,) = slots
    velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, found)
    return jax.tree.map(lambda p, v: p - rate * v, params, velocity), [velocity]


def _adam(params: Any, found: Any, slots: Any, count: Any, rate: float) -> Any:
    mean, square = slots
    mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mean, found)
    square = jax.tree.map(lambda s, g: 0.999 * s + 0.001 * g * g, square, found)
    first, second = 1 - 0.9**count, 1 - 0.999**count
    new = jax.tree.map(lambda p, m, s: p - rate * (m / first) / (jnp.sqrt(s / second) + ADAM), params, mean, square)
    return new, [mean, square]


_OPTIMIZERS: dict[Any, Any] = {"sgd": _sgd, "momentum": _momentum, "adam": _adam}

# ---- networks: parameters, moving statistics, x, rate and key of dropout -> outputs, new statistics -----------------


def _dropped(x: jax.Array, rate: float, key: Any) -> jax.Array:
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0) if rate else x


def _dense(w: Workload, p: Any, moving: Any, x: jax.Array, rate: float, key: Any) -> Any:
    for i, (kernel, *bias) in enumerate(p.values()):
        x = x @ kernel
        x = x + bias[0] if bias else x
        x = jax.nn.relu(x) if i + 1 < len(p) else x
    return x, moving


def _conv(x: jax.Array, kernel: jax.Array, stride: int = 1, pad: int = 0) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (stride,) * 2, ((pad, pad),) * 2, dimension_numbers=LAYOUT)


def _pooled(x: jax.Array) -> jax.Array:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def _convnet(w: Workload, p: Any, moving: Any, x: jax.Array, rate: float, key: Any) -> Any:
    for kernel, bias in (p["conv1"], p["conv2"]):
        x = _pooled(jax.nn.relu(_conv(x, kernel) + bias))
    kernel, bias = p["dense"]
    return _dropped(x.reshape(len(x), -1), rate, key) @ kernel + bias, moving


def _resnet(w: Workload, p: Any, moving: Any, x: jax.Array, rate: float, key: Any) -> Any:
    new = {}

    def normed(name: str, x: jax.Array) -> jax.Array:
        gamma, beta = p[name]
        mean, variance = moving[name]
        if w.training:
            found = x.mean((0, 1, 2)), x.var((0, 1, 2))
            new[name] = [0.9 * mean + 0.1 * found[0], 0.9 * variance + 0.1 * found[1]]
            mean, variance = found
        scale = gamma * lax.rsqrt(variance + NORM[0])
        return x * scale + (beta - mean * scale)

    x = jax.nn.relu(normed("norm0", _conv(x, p["conv0"][0], pad=1)))
    for name, before, filters, stride in blocks(w):
        y = jax.nn.relu(normed(f"{name}_norm1", _conv(x, p[f"{name}_conv1"][0], stride, 1)))
        y = normed(f"{name}_norm2", _conv(y, p[f"{name}_conv2"][0], pad=1))
        if stride > 1 or before != filters:
            x = normed(f"{name}_norm3", _conv(x, p[f"{name}_conv3"][0], stride))
        x = jax.nn.relu(y + x)
    kernel, bias = p["dense"]
    return x.mean((1, 2)) @ kernel + bias, new or moving


# The inputs' products stand inside of the loops: on the CPU, XLA takes a third of the time for that.


def _lstm(w: Workload, p: Any, moving: Any, x: jax.Array, rate: float, key: Any) -> Any:
    kernel, recurrent, bias = p["cells"]

    def cell(state: Any, row: jax.Array) -> Any:
        h, c = state
        i, f, g, o = jnp.split(row @ kernel + h @ recurrent + bias, 4, 1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

    start = jnp.zeros((len(x), w.sizes[0]))
    (h, _), _ = lax.scan(cell, (start, start), x.swapaxes(0, 1))
    return h @ p["dense"][0] + p["dense"][1], moving


def _gru(w: Workload, p: Any, moving: Any, x: jax.Array, rate: float, key: Any) -> Any:
    kernel, recurrent, (bias, inner) = p["cells"]

    def cell(h: jax.Array, row: jax.Array) -> Any:
        (a, b, c), (d, e, f) = jnp.split(row @ kernel + bias, 3, 1), jnp.split(h @ recurrent + inner, 3, 1)
        z, r = jax.nn.sigmoid(a + d), jax.nn.sigmoid(b + e)
        n = jnp.tanh(c + r * f)
        return n + z * (h - n), None

    h, _ = lax.scan(cell, jnp.zeros((len(x), w.sizes[0])), x.swapaxes(0, 1))
    return h @ p["dense"][0] + p["dense"][1], moving


def _layer_norm(x: jax.Array, gamma: jax.Array, beta: jax.Array) -> jax.Array:
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) * lax.rsqrt(variance + NORM[1]) * gamma + beta


def _transformer(w: Workload, p: Any, moving: Any, x: jax.Array, rate: float, key: Any) -> Any:
    keys = jax.random.split(key, 4)
    token, position = p["embed"]
    x = token[x] + position
    *parts, out, bias = p["attention"]
    q, k, v = (jnp.einsum("btw,whd->bthd", x, kernel) + b for kernel, b in zip(parts[::2], parts[1::2], strict=True))
    y = jax.nn.dot_product_attention(q, k, v)
    y = jnp.einsum("bthd,hdw->btw", y, out) + bias
    x = _layer_norm(x + _dropped(y, rate, keys[0]), *p["norm1"])
    y = jax.nn.relu(x @ p["inner1"][0] + p["inner1"][1]) @ p["inner2"][0] + p["inner2"][1]
    x = _layer_norm(x + _dropped(y, rate, keys[1]), *p["norm2"])
    x = _dropped(x.mean(1), rate, keys[2])
    x = _dropped(jax.nn.relu(x @ p["dense1"][0] + p["dense1"][1]), rate, keys[3])
    return x @ p["dense2"][0] + p["dense2"][1], moving


_NETWORKS = {
    "dense": _dense, "convnet": _convnet, "resnet": _resnet, "lstm": _lstm, "gru": _gru, "transformer": _transformer,
}  # fmt: skip
