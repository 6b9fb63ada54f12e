"""Recommendations: a subclassed model of embeddings with biases, trained on pairs, saved by its weights."""

import os
import tempfile

import numpy as np
import keras
from keras import layers, ops

rng = np.random.default_rng(0)
num_users, num_movies = 20, 15
taste, kind = rng.normal(size=(num_users, 3)), rng.normal(size=(num_movies, 3))
pairs = np.stack(np.meshgrid(np.arange(num_users), np.arange(num_movies)), -1).reshape(-1, 2)
ratings = 1 / (1 + np.exp(-(taste[pairs[:, 0]] * kind[pairs[:, 1]]).sum(1)))


class RecommenderNet(keras.Model):
    def __init__(self, num_users, num_movies, embedding_size, **kwargs):
        super().__init__(**kwargs)
        self.user_embedding = layers.Embedding(
            num_users, embedding_size, embeddings_initializer="he_normal",
            embeddings_regularizer=keras.regularizers.l2(1e-6),
        )  # fmt: skip
        self.user_bias = layers.Embedding(num_users, 1)
        self.movie_embedding = layers.Embedding(
            num_movies, embedding_size, embeddings_initializer="he_normal",
            embeddings_regularizer=keras.regularizers.l2(1e-6),
        )  # fmt: skip
        self.movie_bias = layers.Embedding(num_movies, 1)

    def call(self, inputs):
        user_vector = self.user_embedding(inputs[:, 0])
        movie_vector = self.movie_embedding(inputs[:, 1])
        dot_user_movie = ops.sum(user_vector * movie_vector, axis=1, keepdims=True)
        x = dot_user_movie + self.user_bias(inputs[:, 0]) + self.movie_bias(inputs[:, 1])
        return ops.nn.sigmoid(x)


model = RecommenderNet(num_users, num_movies, 8)
optimizer = keras.optimizers.Adam(learning_rate=0.05)
model.compile(loss=keras.losses.BinaryCrossentropy(), optimizer=optimizer)
order = rng.permutation(len(pairs))
history = model.fit(x=pairs[order], y=ratings[order], batch_size=32, epochs=5, verbose=0, validation_split=0.1).history
assert history["loss"][-1] < history["loss"][0]
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "recommender.weights.h5")
    model.save_weights(path)
    other = RecommenderNet(num_users, num_movies, 8)
    other.predict(pairs[:2], verbose=0)
    other.load_weights(path)
np.testing.assert_allclose(other.predict(pairs, verbose=0), model.predict(pairs, verbose=0), rtol=1e-5, atol=1e-6)

unseen = np.stack([np.zeros(num_movies, int), np.arange(num_movies)], 1)
score = model.predict(unseen, verbose=0).flatten().argsort()[-10:][::-1]
