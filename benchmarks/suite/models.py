"""The workloads' networks in Keras's words. ``keras`` is an argument: Keras, or unilayers, which has the same words."""

from __future__ import annotations

from typing import Any

from benchmarks.suite.workloads import ADAM, HEADS, NORM, Workload, weights
from unilayers import networks


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
    return networks.dense(w.sizes, not w.regression, keras)


def _convnet(keras: Any, w: Workload, rate: float) -> Any:
    return networks.convnet(w.sizes, w.shape, rate, keras)


def _resnet(keras: Any, w: Workload, rate: float) -> Any:
    return networks.resnet(18, w.shape, w.sizes[4], w.sizes[:4], True, keras)


def _bottleneck(keras: Any, w: Workload, rate: float) -> Any:
    return networks.resnet(50, w.shape, w.sizes[4], w.sizes[:4], False, keras)


def _recurrent(keras: Any, w: Workload, rate: float) -> Any:
    return networks.recurrent(*w.sizes, w.shape, w.kind.upper(), keras)


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
