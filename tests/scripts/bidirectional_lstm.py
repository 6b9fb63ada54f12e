"""Bidirectional LSTM."""

import numpy as np
import keras
from keras import layers

rng = np.random.default_rng(0)

x = rng.integers(1, 50, (32, 10))
y = rng.integers(0, 2, 32)
inputs = keras.Input(shape=(None,), dtype="int32")
z = layers.Embedding(50, 8)(inputs)
z = layers.Bidirectional(layers.LSTM(4, return_sequences=True))(z)
z = layers.Bidirectional(layers.LSTM(4))(z)
outputs = layers.Dense(1, activation="sigmoid")(z)
model = keras.Model(inputs, outputs)
model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
model.fit(x, y, batch_size=16, epochs=1, verbose=0)
score = model.predict(x, verbose=0)
