"""Sequences, one-hot labels, a registered layer and a saved model."""

import os
import tempfile

import numpy as np
import keras
from keras import layers
from keras.utils import pad_sequences, to_categorical

rng = np.random.default_rng(0)

keras.utils.set_random_seed(7)
texts = [rng.integers(1, 30, rng.integers(3, 12)).tolist() for _ in range(40)]
x = pad_sequences(texts, maxlen=8, padding="post", truncating="post")
y = to_categorical(rng.integers(0, 3, 40), num_classes=3)


@keras.saving.register_keras_serializable(package="scripts")
class Mean(layers.Layer):
    def call(self, x):
        return keras.ops.mean(x, axis=1)


inputs = keras.Input((8,), dtype="int32")
outputs = layers.Dense(3, activation="softmax")(Mean()(layers.Embedding(30, 4)(inputs)))
model = keras.Model(inputs, outputs)
model.summary(line_length=80, show_trainable=True, expand_nested=True, print_fn=lambda *a, **k: None)
model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
model.fit(x, y, epochs=2, batch_size=16, verbose=0)
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "model.keras")
    model.save(path)
    again = keras.models.load_model(path, custom_objects={"Mean": Mean})
    model.save_weights(os.path.join(folder, "model.weights.h5"))
    again.load_weights(os.path.join(folder, "model.weights.h5"))
score = again.evaluate(x, y, verbose=0)
before = model.evaluate(x, y, verbose=0)
assert np.allclose(score, before)
