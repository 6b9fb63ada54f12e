"""Sequence to sequence with states."""

import numpy as np
import keras
from keras import layers

rng = np.random.default_rng(0)

encoder, decoder = rng.random((20, 6, 5)).astype("float32"), rng.random((20, 4, 7)).astype("float32")
first = keras.Input(shape=(None, 5))
_, h, c = layers.LSTM(8, return_state=True)(first)
second = keras.Input(shape=(None, 7))
states = layers.LSTM(8, return_sequences=True)(second, initial_state=[h, c])
outputs = layers.TimeDistributed(layers.Dense(7, activation="softmax"))(states)
model = keras.Model([first, second], outputs)
model.compile(optimizer="rmsprop", loss="categorical_crossentropy")
model.fit([encoder, decoder], np.eye(7)[rng.integers(0, 7, (20, 4))], batch_size=10, epochs=1, verbose=0)
score = model.predict([encoder, decoder], verbose=0)
