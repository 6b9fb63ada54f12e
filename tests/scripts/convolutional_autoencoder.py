"""Autoencoder with transposed convolutions."""

import numpy as np
import keras
from keras import layers

rng = np.random.default_rng(0)

x = rng.random((16, 8, 8, 1)).astype("float32")
inputs = layers.Input(shape=(8, 8, 1))
z = layers.Conv2D(4, (3, 3), activation="relu", padding="same")(inputs)
z = layers.MaxPooling2D((2, 2), padding="same")(z)
z = layers.Conv2DTranspose(4, (3, 3), strides=2, activation="relu", padding="same")(z)
outputs = layers.Conv2D(1, (3, 3), activation="sigmoid", padding="same")(z)
model = keras.Model(inputs, outputs)
model.compile(optimizer="adam", loss="binary_crossentropy")
model.fit(x=x, y=x, epochs=2, batch_size=8, shuffle=True, verbose=0)
score = model.predict(x, verbose=0)
