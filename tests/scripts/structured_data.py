"""A table with numbers and categories: each column has its preprocessing layer, inputs are given by name."""

import numpy as np
import keras
from keras import layers

rng = np.random.default_rng(0)
count = 80
table = {
    "age": rng.integers(20, 80, count).astype("float32"),
    "pressure": rng.normal(130, 20, count).astype("float32"),
    "vessels": rng.integers(0, 4, count).astype("int64"),
    "pain": rng.integers(1, 5, count).astype("int64"),
}
target = ((table["age"] > 50) & (table["vessels"] > 1)).astype("float32")


def encode_numerical_feature(feature, name):
    normalizer = layers.Normalization(axis=None)
    normalizer.adapt(table[name][:, None])
    return normalizer(feature)


def encode_categorical_feature(feature, name):
    lookup = layers.IntegerLookup(output_mode="multi_hot", num_oov_indices=1)
    lookup.adapt(table[name][:, None])
    return lookup(feature)


inputs, features = {}, []
for name in ("age", "pressure"):
    inputs[name] = keras.Input(shape=(1,), name=name)
    features.append(encode_numerical_feature(inputs[name], name))
for name in ("vessels", "pain"):
    inputs[name] = keras.Input(shape=(1,), name=name, dtype="int64")
    features.append(encode_categorical_feature(inputs[name], name))
bins = layers.Discretization(bin_boundaries=[30.0, 50.0, 70.0], output_mode="one_hot")
features.append(bins(inputs["age"]))

x = layers.concatenate(features)
x = layers.Dense(16, activation="relu")(x)
x = layers.Dropout(0.3)(x)
output = layers.Dense(1, activation="sigmoid")(x)
model = keras.Model(inputs, output)
model.compile("adam", "binary_crossentropy", metrics=["accuracy", keras.metrics.AUC(name="auc")])
columns = {name: values[:, None] for name, values in table.items()}
model.fit(columns, target, epochs=5, batch_size=16, verbose=0)

sample = {"age": 60, "pressure": 145, "vessels": 2, "pain": 3}
score = model.predict({name: np.array([[value]]) for name, value in sample.items()}, verbose=0)
