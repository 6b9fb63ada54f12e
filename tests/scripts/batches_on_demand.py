"""Batches that are made when they are wanted, in mixed precision, with callbacks of one's own."""

import math

import numpy as np
import keras
from keras import layers


class Pictures(keras.utils.PyDataset):
    def __init__(self, count, batch_size, **kwargs):
        super().__init__(**kwargs)
        self.count, self.batch_size = count, batch_size

    def __len__(self):
        return math.ceil(self.count / self.batch_size)

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        low = index * self.batch_size
        size = min(self.batch_size, self.count - low)
        y = rng.integers(0, 2, size)
        x = rng.random((size, 8, 8, 1)).astype("float32") * 0.3
        x[y == 1, 2:6, 2:6] += 0.7
        return x, y


class WarmUp(keras.callbacks.Callback):
    """Raises the learning rate over the first steps, and counts what it sees."""

    def __init__(self, target, steps):
        super().__init__()
        self.target, self.steps, self.seen = target, steps, 0

    def on_train_batch_begin(self, batch, logs=None):
        self.seen += 1
        self.model.optimizer.learning_rate = self.target * min(1.0, self.seen / self.steps)

    def on_epoch_end(self, epoch, logs=None):
        assert "val_loss" in logs and "loss" in logs


keras.mixed_precision.set_global_policy("mixed_float16")
try:
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 3, activation="relu"),
            layers.GlobalMaxPooling2D(),
            layers.Dense(2, dtype="float32", activation="softmax"),
        ]
    )
    assert model.layers[0].compute_dtype == "float16" and model.layers[0].kernel.dtype == "float32"
finally:
    keras.mixed_precision.set_global_policy("float32")

train, held = Pictures(90, 16, workers=2), Pictures(32, 16)
warm = WarmUp(0.02, 5)
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
history = model.fit(train, epochs=3, validation_data=held, callbacks=[warm], verbose=0)
assert warm.seen == 18 and float(model.optimizer.learning_rate) == np.float32(0.02)
assert history.history["loss"][-1] < history.history["loss"][0]
score = model.predict(held, verbose=0)
