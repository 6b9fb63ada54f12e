"""The networks in Keras's words. ``keras`` is an argument: it is Keras, or unilayers, which has the same words."""

from __future__ import annotations

from typing import Any

from benchmarks.suite.workloads import ADAM, HEADS, NORM, Workload, blocks, bottlenecks, weights


def model(keras: Any, w: Workload, dropout: bool = True) -> Any:
    """The network of a workload with its initial weights.

    Args:
        keras: The library.
        w: The workload.
        dropout: Whether dropout is done.
    """
    made = _MODELS[w.kind](keras, w, w.dropout if dropout else 0.0)
    for name, arrays in weights(w).items():
        made.get_layer(name).set_weights(arrays)
    return made


def compiled(keras: Any, w: Workload, dropout: bool = True, **place: Any) -> Any:
    """The same, told how to train."""
    made = model(keras, w, dropout)
    optimizer = {
        "adam": lambda: keras.optimizers.Adam(w.rate, epsilon=ADAM),
        "sgd": lambda: keras.optimizers.SGD(w.rate),
        "momentum": lambda: keras.optimizers.SGD(w.rate, momentum=0.9),
    }[w.optimizer or "sgd"]()
    made.compile(optimizer=optimizer, loss=loss(keras, w), **place)
    return made


def loss(keras: Any, w: Workload) -> Any:
    """What the network minimises."""
    losses = keras.losses
    return losses.MeanSquaredError() if w.regression else losses.SparseCategoricalCrossentropy(from_logits=True)


# ---- networks -----------------------------------------------------------------------------------------------


def _dense(keras: Any, w: Workload, rate: float) -> Any:
    last = len(w.sizes) - 2
    layers = [
        keras.layers.Dense(n, activation=None if i == last else "relu", use_bias=not w.regression, name=f"dense{i}")
        for i, n in enumerate(w.sizes[1:])
    ]
    return keras.Sequential([keras.Input(w.shape), *layers])


def _convnet(keras: Any, w: Workload, rate: float) -> Any:
    layers, (first, second, classes) = keras.layers, w.sizes
    return keras.Sequential(
        [
            keras.Input(w.shape),
            layers.Conv2D(first, 3, activation="relu", name="conv1"),
            layers.MaxPooling2D(),
            layers.Conv2D(second, 3, activation="relu", name="conv2"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(rate),
            layers.Dense(classes, name="dense"),
        ]
    )


def _conv(keras: Any, x: Any, filters: int, size: int, stride: int, prefix: str, number: int) -> Any:
    """A convolution without bias, and the normalization behind it."""
    layers = keras.layers
    if stride > 1 and size > 1:  # zeros on all sides, as the other frameworks have it
        x = layers.ZeroPadding2D(size // 2)(x)
    padding = "valid" if stride > 1 else "same"
    x = layers.Conv2D(filters, size, stride, padding, use_bias=False, name=f"{prefix}conv{number}")(x)
    return layers.BatchNormalization(momentum=0.9, epsilon=NORM[0], name=f"{prefix}norm{number}")(x)


def _resnet(keras: Any, w: Workload, rate: float) -> Any:
    layers = keras.layers
    inputs = keras.Input(w.shape)
    x = layers.ReLU()(_conv(keras, inputs, w.sizes[0], 3, 1, "", 0))
    for name, before, filters, stride in blocks(w):
        y = layers.ReLU()(_conv(keras, x, filters, 3, stride, f"{name}_", 1))
        y = _conv(keras, y, filters, 3, 1, f"{name}_", 2)
        if stride > 1 or before != filters:
            x = _conv(keras, x, filters, 1, stride, f"{name}_", 3)
        x = layers.ReLU()(layers.Add()([y, x]))
    return keras.Model(inputs, layers.Dense(w.sizes[4], name="dense")(layers.GlobalAveragePooling2D()(x)))


def _bottleneck(keras: Any, w: Workload, rate: float) -> Any:
    layers = keras.layers
    inputs = keras.Input(w.shape)
    x = layers.ReLU()(_conv(keras, inputs, w.sizes[0], 7, 2, "", 0))
    x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(x))
    for name, before, narrow, stride in bottlenecks(w):
        y = layers.ReLU()(_conv(keras, x, narrow, 1, 1, f"{name}_", 1))
        y = layers.ReLU()(_conv(keras, y, narrow, 3, stride, f"{name}_", 2))
        y = _conv(keras, y, 4 * narrow, 1, 1, f"{name}_", 3)
        if stride > 1 or before != 4 * narrow:
            x = _conv(keras, x, 4 * narrow, 1, stride, f"{name}_", 4)
        x = layers.ReLU()(layers.Add()([y, x]))
    return keras.Model(inputs, layers.Dense(w.sizes[4], name="dense")(layers.GlobalAveragePooling2D()(x)))


def _recurrent(keras: Any, w: Workload, rate: float) -> Any:
    cells = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU}[w.kind](w.sizes[0], name="cells")
    return keras.Sequential([keras.Input(w.shape), cells, keras.layers.Dense(w.sizes[1], name="dense")])


def _transformer(keras: Any, w: Workload, rate: float) -> Any:
    layers, (words, width, head, inner, hidden, classes) = keras.layers, w.sizes

    class Embed(layers.Layer):  # type: ignore[misc]
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.token = layers.Embedding(words, width)
            self.position = layers.Embedding(w.shape[0], width)

        def call(self, x: Any) -> Any:
            return self.token(x) + self.position(keras.ops.arange(0, w.shape[0], 1))

    inputs = keras.Input(w.shape, dtype="int32")
    x = Embed(name="embed")(inputs)
    y = layers.MultiHeadAttention(HEADS, head, name="attention")(x, x)
    x = layers.LayerNormalization(epsilon=NORM[1], name="norm1")(layers.Add()([x, layers.Dropout(rate)(y)]))
    y = layers.Dense(width, name="inner2")(layers.Dense(inner, activation="relu", name="inner1")(x))
    x = layers.LayerNormalization(epsilon=NORM[1], name="norm2")(layers.Add()([x, layers.Dropout(rate)(y)]))
    x = layers.Dropout(rate)(layers.GlobalAveragePooling1D()(x))
    x = layers.Dropout(rate)(layers.Dense(hidden, activation="relu", name="dense1")(x))
    return keras.Model(inputs, layers.Dense(classes, name="dense2")(x))


_MODELS = {
    "dense": _dense, "convnet": _convnet, "resnet": _resnet, "bottleneck": _bottleneck, "lstm": _recurrent,
    "gru": _recurrent, "transformer": _transformer,
}  # fmt: skip
