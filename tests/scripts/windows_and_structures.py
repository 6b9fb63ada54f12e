"""Windows over a series and nested structures."""

import numpy as np
import keras
from keras import layers

rng = np.random.default_rng(0)

series = np.sin(np.arange(120) / 5).astype("float32")[:, None]
windows = keras.utils.timeseries_dataset_from_array(series[:-10], series[10:], sequence_length=10, batch_size=25)
x, y = (np.concatenate(part) for part in zip(*[[np.array(p) for p in batch] for batch in windows]))
model = keras.Sequential([keras.Input((10, 1)), layers.LSTM(4), layers.Dense(1)])
model.compile("adam", "mse")
model.fit(x, y, epochs=1, verbose=0)
sizes = keras.tree.map_structure(lambda w: int(np.prod(w.shape)), {"all": model.weights})
bar = keras.utils.Progbar(2, verbose=0)
bar.update(1, [("loss", 1.0)])
score = [model.evaluate(x, y, verbose=0), sum(keras.tree.flatten(sizes)), keras.backend.epsilon()]
