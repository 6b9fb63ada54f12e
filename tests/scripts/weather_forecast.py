"""Forecasts of a series: windows over a table, stacked recurrent layers, a dataset from an array."""

import numpy as np
import keras
from keras import layers

rng = np.random.default_rng(0)
hours = np.arange(400)
table = np.stack([np.sin(hours / 12), np.cos(hours / 12), 0.1 * rng.normal(size=400)], 1)
mean, std = table[:300].mean(axis=0), table[:300].std(axis=0)
table = ((table - mean) / std).astype("float32")
past, future, step = 24, 6, 2

dataset_train = keras.utils.timeseries_dataset_from_array(
    table[:300], table[past + future : 300, 0], sequence_length=past // step, sampling_rate=step, batch_size=32,
    shuffle=True, seed=1,
)  # fmt: skip
dataset_val = keras.utils.timeseries_dataset_from_array(
    table[300:], table[300 + past + future :, 0], sequence_length=past // step, sampling_rate=step, batch_size=32
)
for batch, targets in dataset_train:
    break
assert tuple(batch.shape) == (32, 12, 3) and tuple(targets.shape) == (32,)

inputs = keras.layers.Input(shape=(batch.shape[1], batch.shape[2]))
x = layers.GRU(8, return_sequences=True, dropout=0.1)(inputs)
x = layers.LSTM(8)(x)
outputs = layers.Dense(1)(x)
model = keras.Model(inputs=inputs, outputs=outputs)
model.compile(optimizer=keras.optimizers.Adam(learning_rate=0.01), loss="mse", metrics=["mae"])
stop = keras.callbacks.EarlyStopping(monitor="val_loss", min_delta=0, patience=5)
history = model.fit(dataset_train, epochs=4, validation_data=dataset_val, callbacks=[stop], verbose=0)
assert history.history["val_loss"][-1] < history.history["val_loss"][0]

score = model.predict(dataset_val, verbose=0)
