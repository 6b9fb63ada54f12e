"""Transformer with layers of one's own."""

import numpy as np
import keras
from keras import layers

rng = np.random.default_rng(0)


class Block(layers.Layer):
    def __init__(self, width, heads, inner, rate=0.1):
        super().__init__()
        self.attention = layers.MultiHeadAttention(num_heads=heads, key_dim=width)
        self.inner = keras.Sequential([layers.Dense(inner, activation="relu"), layers.Dense(width)])
        self.first, self.second = layers.LayerNormalization(epsilon=1e-6), layers.LayerNormalization(epsilon=1e-6)
        self.drop = layers.Dropout(rate)

    def call(self, x, training=False):
        x = self.first(x + self.drop(self.attention(x, x), training=training))
        return self.second(x + self.inner(x))


class Positions(layers.Layer):
    def __init__(self, length, words, width):
        super().__init__()
        self.words = layers.Embedding(input_dim=words, output_dim=width)
        self.places = layers.Embedding(input_dim=length, output_dim=width)

    def call(self, x):
        places = keras.ops.arange(0, keras.ops.shape(x)[-1], 1)
        return self.words(x) + self.places(places)


x, y = rng.integers(0, 40, (24, 12)), rng.integers(0, 2, 24)
inputs = layers.Input(shape=(12,))
z = Block(8, 2, 16)(Positions(12, 40, 8)(inputs))
z = layers.GlobalAveragePooling1D()(z)
outputs = layers.Dense(2, activation="softmax")(z)
model = keras.Model(inputs=inputs, outputs=outputs)
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(x, y, batch_size=8, epochs=1, validation_data=(x, y), verbose=0)
score = model.evaluate(x, y, verbose=0)
