"""Frozen layers and class weights."""

import numpy as np
import keras
from keras import layers

rng = np.random.default_rng(0)

x, y = rng.normal(size=(40, 6)).astype("float32"), rng.integers(0, 2, 40)
base = keras.Sequential([keras.Input((6,)), layers.Dense(8, activation="tanh")], name="base")
base.trainable = False
before = [w.copy() for w in base.get_weights()]
inputs = keras.Input((6,))
outputs = layers.Dense(1)(base(inputs, training=False))
model = keras.Model(inputs, outputs)
loss = keras.losses.BinaryCrossentropy(from_logits=True)
model.compile(keras.optimizers.Adam(1e-2), loss, metrics=[keras.metrics.AUC(from_logits=True)])
model.fit(x, y, epochs=2, batch_size=10, class_weight={0: 1.0, 1: 3.0}, verbose=0)
assert all((a == b).all() for a, b in zip(before, base.get_weights()))
assert len(model.trainable_weights) == 2
score = model.predict(x, verbose=0)
