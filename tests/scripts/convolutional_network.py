"""Convolutional network."""

import numpy as np
import keras
from keras import layers

rng = np.random.default_rng(0)

x = rng.random((48, 12, 12, 1)).astype("float32")
y = rng.integers(0, 3, 48)
model = keras.Sequential(
    [
        keras.Input(shape=(12, 12, 1)),
        layers.Conv2D(4, kernel_size=(3, 3), activation="relu"),
        layers.MaxPooling2D(pool_size=(2, 2)),
        layers.Flatten(),
        layers.Dropout(0.5),
        layers.Dense(3, activation="softmax"),
    ]
)
model.summary(print_fn=lambda *a, **k: None)
model.compile(loss="sparse_categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
model.fit(x, y, batch_size=16, epochs=2, validation_split=0.25, verbose=0)
score = model.evaluate(x, y, verbose=0)
