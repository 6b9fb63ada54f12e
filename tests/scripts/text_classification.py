"""Sentiment of texts: a vocabulary that is learned, a 1D convolution, a model that takes strings in the end."""

import re
import string

import numpy as np
import keras
from keras import layers

good = ["a wonderful film", "great acting, great story", "I loved it!", "what a lovely, funny movie"]
bad = ["a terrible film", "boring story and bad acting", "I hated it.", "what a dull, awful movie"]
texts = np.array((good + bad) * 6)
labels = np.array(([1.0] * 4 + [0.0] * 4) * 6)

max_features, embedding_dim, sequence_length = 100, 16, 8
vectorize_layer = layers.TextVectorization(
    max_tokens=max_features, output_mode="int", output_sequence_length=sequence_length
)
vectorize_layer.adapt(texts)
assert vectorize_layer.get_vocabulary()[:2] == ["", "[UNK]"]
assert not any(re.search(f"[{re.escape(string.punctuation)}]", word) for word in vectorize_layer.get_vocabulary()[2:])

inputs = keras.Input(shape=(sequence_length,), dtype="int64")
x = layers.Embedding(max_features, embedding_dim)(inputs)
x = layers.Dropout(0.2)(x)
x = layers.Conv1D(16, 3, padding="valid", activation="relu", strides=1)(x)
x = layers.GlobalMaxPooling1D()(x)
x = layers.Dense(16, activation="relu")(x)
predictions = layers.Dense(1, activation="sigmoid", name="predictions")(x)
model = keras.Model(inputs, predictions)
model.compile(loss="binary_crossentropy", optimizer=keras.optimizers.Adam(0.01), metrics=["accuracy"])
indices = np.asarray(vectorize_layer(texts))
model.fit(indices, labels, epochs=6, batch_size=8, validation_split=0.2, verbose=0)
loss, accuracy = model.evaluate(indices, labels, verbose=0)
assert accuracy > 0.9

score = model.predict(np.asarray(vectorize_layer(np.array(["a lovely story", "an awful bore"]))), verbose=0)
