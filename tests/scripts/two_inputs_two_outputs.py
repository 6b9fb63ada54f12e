"""Two inputs, two outputs."""

import numpy as np
import keras
from keras import layers

rng = np.random.default_rng(0)

a, b = rng.normal(size=(30, 4)).astype("float32"), rng.normal(size=(30, 6)).astype("float32")
first, second = keras.Input((4,), name="first"), keras.Input((6,), name="second")
z = layers.concatenate([layers.Dense(5, activation="relu")(first), layers.Dense(5, activation="relu")(second)])
size = layers.Dense(1, name="size")(z)
kind = layers.Dense(3, activation="softmax", name="kind")(z)
model = keras.Model([first, second], [size, kind])
model.compile(
    optimizer=keras.optimizers.RMSprop(1e-3),
    loss={"size": "mse", "kind": "sparse_categorical_crossentropy"},
    loss_weights={"size": 1.0, "kind": 0.5},
    metrics={"kind": ["accuracy"]},
)
targets = {"size": rng.normal(size=(30, 1)), "kind": rng.integers(0, 3, 30)}
model.fit({"first": a, "second": b}, targets, epochs=2, batch_size=10, verbose=0)
score = model.evaluate({"first": a, "second": b}, targets, verbose=0, return_dict=True)["loss"]
