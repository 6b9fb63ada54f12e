"""Pairs of pictures through one network with shared weights; the distance between them; a contrastive loss."""

import numpy as np
import keras
from keras import ops

rng = np.random.default_rng(0)
base = np.stack([np.eye(10), np.fliplr(np.eye(10)), np.ones((10, 10)) * np.arange(10) / 10])
labels = rng.integers(0, 3, 60)
images = (base[labels] + 0.1 * rng.normal(size=(60, 10, 10))).astype("float32")


def make_pairs(x, y):
    pairs, same = [], []
    for i in range(len(x)):
        for wanted in (True, False):
            j = rng.choice(np.flatnonzero((y == y[i]) == wanted))
            pairs.append([x[i], x[j]])
            same.append(0.0 if wanted else 1.0)
    return np.array(pairs), np.array(same).astype("float32")


def euclidean_distance(vects):
    x, y = vects
    sum_square = ops.sum(ops.square(x - y), axis=1, keepdims=True)
    return ops.sqrt(ops.maximum(sum_square, keras.backend.epsilon()))


def loss(margin=1):
    def contrastive_loss(y_true, y_pred):
        square_pred = ops.square(y_pred)
        margin_square = ops.square(ops.maximum(margin - (y_pred), 0))
        return ops.mean((1 - y_true) * square_pred + (y_true) * margin_square)

    return contrastive_loss


inputs = keras.layers.Input((10, 10, 1))
x = keras.layers.BatchNormalization()(inputs)
x = keras.layers.Conv2D(4, (5, 5), activation="tanh")(x)
x = keras.layers.AveragePooling2D(pool_size=(2, 2))(x)
x = keras.layers.Flatten()(x)
x = keras.layers.BatchNormalization()(x)
x = keras.layers.Dense(10, activation="tanh")(x)
embedding_network = keras.Model(inputs, x)

input_1, input_2 = keras.layers.Input((10, 10, 1)), keras.layers.Input((10, 10, 1))
tower_1, tower_2 = embedding_network(input_1), embedding_network(input_2)
merge_layer = keras.layers.Lambda(euclidean_distance, output_shape=(1,))([tower_1, tower_2])
normal_layer = keras.layers.BatchNormalization()(merge_layer)
output_layer = keras.layers.Dense(1, activation="sigmoid")(normal_layer)
siamese = keras.Model(inputs=[input_1, input_2], outputs=output_layer)
siamese.compile(loss=loss(margin=1), optimizer="RMSprop", metrics=["accuracy"])

pairs, same = make_pairs(images, labels)
pairs = pairs[..., None]
siamese.fit([pairs[:, 0], pairs[:, 1]], same, validation_split=0.2, batch_size=16, epochs=3, verbose=0)
score = siamese.evaluate([pairs[:, 0], pairs[:, 1]], same, verbose=0)
