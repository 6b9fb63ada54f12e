"""The workloads as a TensorFlow program without Keras has them: variables, and a step under ``tf.function``."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.suite.contestant import Steps
from benchmarks.suite.workloads import ADAM, HEADS, NORM, Workload, batches, blocks, weights

ONES = [[0, 0], [1, 1], [1, 1], [0, 0]]  # padding


def build(w: Workload, variant: str, *, dropout: bool = True) -> Steps:
    """A contestant.

    Args:
        w: The workload.
        variant: ``function``; ``xla``, compiled by it.
        dropout: Whether dropout is done.
    """
    rate, xla = w.dropout if dropout else 0.0, True if variant == "xla" else None
    variables = {name: list(map(tf.Variable, arrays)) for name, arrays in weights(w).items()}
    network, data = _NETWORKS[w.kind], batches(w)
    if not w.training:
        forward = tf.function(lambda x: network(w, variables, x, 0.0), jit_compile=xla, autograph=False)
        return Steps(lambda x: forward(tf.convert_to_tensor(x)).numpy(), data, np.asarray)
    params = [v for name, arrays in variables.items() for v in (arrays[:2] if _is_moving(w, name) else arrays)]
    update = _optimizer(w, params)

    @tf.function(jit_compile=xla, autograph=False)
    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            outputs = network(w, variables, x, rate)
            if w.regression:
                loss = tf.reduce_mean(tf.math.squared_difference(outputs, y))
            else:
                loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, outputs))
        update([tf.convert_to_tensor(g) for g in tape.gradient(loss, params)])
        return loss

    return Steps(step, [tuple(map(tf.constant, batch)) for batch in data], lambda loss: loss.numpy())


def _is_moving(w: Workload, name: str) -> bool:
    return w.kind == "resnet" and "norm" in name


def _optimizer(w: Workload, params: list[tf.Variable]) -> Any:
    """A function that takes the gradients; one fused op a parameter, as TensorFlow's optimizers have it."""
    raw = tf.raw_ops
    if w.optimizer == "sgd":
        return lambda found: [
            raw.ResourceApplyGradientDescent(var=p.handle, alpha=w.rate, delta=g)
            for p, g in zip(params, found, strict=True)
        ]
    slots = [[tf.Variable(tf.zeros_like(p)) for p in params] for _ in range(2)]
    if w.optimizer == "momentum":
        return lambda found: [
            raw.ResourceApplyMomentum(var=p.handle, accum=v.handle, lr=w.rate, grad=g, momentum=0.9)
            for p, v, g in zip(params, slots[0], found, strict=True)
        ]
    powers = tf.Variable(0.9), tf.Variable(0.999)
    constant = {"lr": w.rate, "beta1": 0.9, "beta2": 0.999, "epsilon": ADAM}

    def adam(found: list[Any]) -> None:
        first, second = powers[0].read_value(), powers[1].read_value()
        for p, m, v, g in zip(params, *slots, found, strict=True):
            raw.ResourceApplyAdam(
                var=p.handle, m=m.handle, v=v.handle, grad=g, beta1_power=first, beta2_power=second, **constant
            )
        powers[0].assign(first * 0.9)
        powers[1].assign(second * 0.999)

    return adam


# ---- networks: variables, x, rate of dropout -> outputs ----------------------------------------------------------


def _linear(x: Any, kernel: Any, bias: Any) -> Any:
    if len(x.shape) == 2:
        return tf.nn.bias_add(tf.matmul(x, kernel), bias)
    flat = tf.matmul(tf.reshape(x, (-1, x.shape[-1])), kernel)
    return tf.reshape(tf.nn.bias_add(flat, bias), (*x.shape[:-1], kernel.shape[-1]))


def _dropped(x: Any, rate: float) -> Any:
    return tf.nn.dropout(x, rate) if rate else x


def _dense(w: Workload, p: Any, x: Any, rate: float) -> Any:
    for i, (kernel, *bias) in enumerate(p.values()):
        x = _linear(x, kernel, bias[0]) if bias else tf.matmul(x, kernel)
        x = tf.nn.relu(x) if i + 1 < len(p) else x
    return x


def _convnet(w: Workload, p: Any, x: Any, rate: float) -> Any:
    for kernel, bias in (p["conv1"], p["conv2"]):
        x = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "VALID"), bias))
        x = tf.nn.max_pool2d(x, 2, 2, "VALID")
    return _linear(_dropped(tf.reshape(x, (x.shape[0], -1)), rate), *p["dense"])


def _resnet(w: Workload, p: Any, x: Any, rate: float) -> Any:
    def normed(name: str, x: Any) -> Any:
        gamma, beta, mean, variance = p[name]
        norm = tf.compat.v1.nn.fused_batch_norm
        if not w.training:
            return norm(x, gamma, beta, mean, variance, epsilon=NORM[0], is_training=False)[0]
        y, found_mean, found_variance = norm(x, gamma, beta, epsilon=NORM[0])
        mean.assign_sub(0.1 * (mean - found_mean))
        variance.assign_sub(0.1 * (variance - found_variance))
        return y

    x = tf.nn.relu(normed("norm0", tf.nn.conv2d(x, p["conv0"][0], 1, ONES)))
    for name, before, filters, stride in blocks(w):
        y = tf.nn.relu(normed(f"{name}_norm1", tf.nn.conv2d(x, p[f"{name}_conv1"][0], stride, ONES)))
        y = normed(f"{name}_norm2", tf.nn.conv2d(y, p[f"{name}_conv2"][0], 1, ONES))
        if stride > 1 or before != filters:
            x = normed(f"{name}_norm3", tf.nn.conv2d(x, p[f"{name}_conv3"][0], stride, "VALID"))
        x = tf.nn.relu(y + x)
    return _linear(tf.reduce_mean(x, (1, 2)), *p["dense"])


def _over_time(w: Workload, p: Any, x: Any, bias: Any, cell: Any, count: int) -> Any:
    """The first of the states after the last step; the inputs' part of all gates is one product."""
    batch, length, features = x.shape
    rows = tf.reshape(tf.transpose(x, (1, 0, 2)), (-1, features))
    rows = tf.reshape(_linear(rows, p["cells"][0], bias), (length, batch, -1))
    rows = tf.TensorArray(rows.dtype, length, element_shape=rows.shape[1:]).unstack(rows)
    start = (tf.constant(0), *(tf.zeros((batch, w.sizes[0])) for _ in range(count)))

    def step(t: Any, *states: Any) -> Any:
        return (t + 1, *cell(rows.read(t), *states))

    found = tf.while_loop(lambda t, *_: t < length, step, start, maximum_iterations=length)
    return _linear(found[1], *p["dense"])


def _lstm(w: Workload, p: Any, x: Any, rate: float) -> Any:
    _, recurrent, bias = p["cells"]
    weight = tf.convert_to_tensor(recurrent)

    def cell(row: Any, h: Any, c: Any) -> Any:
        i, f, g, o = tf.split(row + tf.matmul(h, weight), 4, 1)
        c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
        return tf.sigmoid(o) * tf.tanh(c), c

    return _over_time(w, p, x, bias, cell, 2)


def _gru(w: Workload, p: Any, x: Any, rate: float) -> Any:
    _, recurrent, biases = p["cells"]
    weight, (bias, inner) = tf.convert_to_tensor(recurrent), tf.unstack(biases)

    def cell(row: Any, h: Any) -> Any:
        (a, b, c), (d, e, f) = tf.split(row, 3, 1), tf.split(tf.matmul(h, weight) + inner, 3, 1)
        z, r = tf.sigmoid(a + d), tf.sigmoid(b + e)
        n = tf.tanh(c + r * f)
        return (n + z * (h - n),)

    return _over_time(w, p, x, bias, cell, 1)


def _layer_norm(x: Any, gamma: Any, beta: Any) -> Any:
    mean, variance = tf.nn.moments(x, -1, keepdims=True)
    return (x - mean) * tf.math.rsqrt(variance + NORM[1]) * gamma + beta


def _transformer(w: Workload, p: Any, x: Any, rate: float) -> Any:
    token, position = p["embed"]
    *parts, out, bias = p["attention"]
    width, head = out.shape[-1], out.shape[1]
    x = tf.gather(token, x) + position
    kernel = tf.concat([tf.reshape(k, (width, -1)) for k in parts[::2]], 1)
    joined = _linear(x, kernel, tf.concat([tf.reshape(b, (-1,)) for b in parts[1::2]], 0))
    q, k, v = tf.unstack(tf.transpose(tf.reshape(joined, (*x.shape[:2], 3, HEADS, head)), (2, 0, 3, 1, 4)))
    y = tf.matmul(tf.nn.softmax(tf.matmul(q, k, transpose_b=True) * head**-0.5), v)
    y = tf.reshape(tf.transpose(y, (0, 2, 1, 3)), (*x.shape[:2], HEADS * head))
    y = _linear(y, tf.reshape(out, (-1, width)), bias)
    x = _layer_norm(x + _dropped(y, rate), *p["norm1"])
    y = _linear(tf.nn.relu(_linear(x, *p["inner1"])), *p["inner2"])
    x = _layer_norm(x + _dropped(y, rate), *p["norm2"])
    x = _dropped(tf.reduce_mean(x, 1), rate)
    return _linear(_dropped(tf.nn.relu(_linear(x, *p["dense1"])), rate), *p["dense2"])


_NETWORKS = {
    "dense": _dense, "convnet": _convnet, "resnet": _resnet, "lstm": _lstm, "gru": _gru, "transformer": _transformer,
}  # fmt: skip
