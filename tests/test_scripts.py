"""Training scripts as people write them for Keras, run with the import changed; the slow tests run them by Keras."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

HEAD = """
import numpy as np
import keras
from keras import layers

rng = np.random.default_rng(0)
"""

SCRIPTS = {
    "convolutional network": """
x = rng.random((48, 12, 12, 1)).astype("float32")
y = rng.integers(0, 3, 48)
model = keras.Sequential([
    keras.Input(shape=(12, 12, 1)),
    layers.Conv2D(4, kernel_size=(3, 3), activation="relu"),
    layers.MaxPooling2D(pool_size=(2, 2)),
    layers.Flatten(),
    layers.Dropout(0.5),
    layers.Dense(3, activation="softmax"),
])
model.summary(print_fn=lambda *a, **k: None)
model.compile(loss="sparse_categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
model.fit(x, y, batch_size=16, epochs=2, validation_split=0.25, verbose=0)
score = model.evaluate(x, y, verbose=0)
""",
    "one-hot targets and callbacks": """
x = rng.normal(size=(60, 8)).astype("float32")
y = np.eye(4)[rng.integers(0, 4, 60)]
model = keras.models.Sequential()
model.add(keras.Input((8,)))
penalty = keras.regularizers.l2(1e-3)
model.add(layers.Dense(16, activation="elu", kernel_initializer="he_normal", kernel_regularizer=penalty))
model.add(layers.BatchNormalization())
model.add(layers.Dense(4))
model.compile(
    optimizer=keras.optimizers.SGD(learning_rate=0.05, momentum=0.9, nesterov=True),
    loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
    metrics=[keras.metrics.CategoricalAccuracy(), keras.metrics.TopKCategoricalAccuracy(k=2)],
)
history = model.fit(x, y, epochs=4, validation_data=(x, y), verbose=0, callbacks=[
    keras.callbacks.EarlyStopping(patience=2, restore_best_weights=True),
    keras.callbacks.ReduceLROnPlateau(factor=0.5, patience=1),
])
score = history.history["val_loss"]
""",
    "bidirectional LSTM": """
x = rng.integers(1, 50, (32, 10))
y = rng.integers(0, 2, 32)
inputs = keras.Input(shape=(None,), dtype="int32")
z = layers.Embedding(50, 8)(inputs)
z = layers.Bidirectional(layers.LSTM(4, return_sequences=True))(z)
z = layers.Bidirectional(layers.LSTM(4))(z)
outputs = layers.Dense(1, activation="sigmoid")(z)
model = keras.Model(inputs, outputs)
model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
model.fit(x, y, batch_size=16, epochs=1, verbose=0)
score = model.predict(x, verbose=0)
""",
    "transformer with layers of one's own": """
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
""",
    "two inputs, two outputs": """
a, b = rng.normal(size=(30, 4)).astype("float32"), rng.normal(size=(30, 6)).astype("float32")
first, second = keras.Input((4,), name="first"), keras.Input((6,), name="second")
z = layers.concatenate([layers.Dense(5, activation="relu")(first), layers.Dense(5, activation="relu")(second)])
size = layers.Dense(1, name="size")(z)
kind = layers.Dense(3, activation="softmax", name="kind")(z)
model = keras.Model([first, second], [size, kind])
model.compile(
    optimizer=keras.optimizers.RMSprop(1e-3),
    loss={"size": "mse", "kind": "sparse_categorical_crossentropy"},
    loss_weights={"size": 1.0, "kind": 0.5},
    metrics={"kind": ["accuracy"]},
)
targets = {"size": rng.normal(size=(30, 1)), "kind": rng.integers(0, 3, 30)}
model.fit({"first": a, "second": b}, targets, epochs=2, batch_size=10, verbose=0)
score = model.evaluate({"first": a, "second": b}, targets, verbose=0, return_dict=True)["loss"]
""",
    "autoencoder with transposed convolutions": """
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
""",
    "residual network with a schedule": """
def block(x, filters, stride=1):
    y = layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False)(x)
    y = layers.ReLU()(layers.BatchNormalization()(y))
    y = layers.BatchNormalization()(layers.Conv2D(filters, 3, padding="same", use_bias=False)(y))
    if stride != 1 or x.shape[-1] != filters:
        x = layers.Conv2D(filters, 1, strides=stride, use_bias=False)(x)
    return layers.Activation("relu")(layers.add([x, y]))

x, y = rng.random((16, 8, 8, 3)).astype("float32"), rng.integers(0, 4, 16)
inputs = keras.Input((8, 8, 3))
z = layers.Rescaling(1.0 / 255)(inputs)
z = block(block(z, 4), 8, stride=2)
outputs = layers.Dense(4)(layers.GlobalAveragePooling2D()(z))
model = keras.Model(inputs, outputs, name="small_resnet")
schedule = keras.optimizers.schedules.CosineDecay(0.1, decay_steps=10, alpha=0.01)
model.compile(
    keras.optimizers.AdamW(schedule, weight_decay=1e-4, clipnorm=1.0),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=[keras.metrics.SparseCategoricalAccuracy(name="acc")],
)
model.fit(x, y, batch_size=8, epochs=2, verbose=0)
score = model.evaluate(x, y, verbose=0)
""",
    "frozen layers and class weights": """
x, y = rng.normal(size=(40, 6)).astype("float32"), rng.integers(0, 2, 40)
base = keras.Sequential([keras.Input((6,)), layers.Dense(8, activation="tanh")], name="base")
base.trainable = False
before = [w.copy() for w in base.get_weights()]
inputs = keras.Input((6,))
outputs = layers.Dense(1)(base(inputs, training=False))
model = keras.Model(inputs, outputs)
loss = keras.losses.BinaryCrossentropy(from_logits=True)
model.compile(keras.optimizers.Adam(1e-2), loss, metrics=[keras.metrics.AUC(from_logits=True)])
model.fit(x, y, epochs=2, batch_size=10, class_weight={0: 1.0, 1: 3.0}, verbose=0)
assert all((a == b).all() for a, b in zip(before, base.get_weights()))
assert len(model.trainable_weights) == 2
score = model.predict(x, verbose=0)
""",
    "a loss and a metric of one's own": """
def distance(y_true, y_pred):
    return keras.ops.mean(keras.ops.abs(y_true - y_pred), axis=-1)

class Largest(keras.metrics.Metric):
    def __init__(self, name="largest", **kwargs):
        super().__init__(name=name, **kwargs)
        self.value = self.add_variable(shape=(), initializer="zeros", name="value")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.value.assign(keras.ops.maximum(self.value, keras.ops.max(keras.ops.abs(y_true - y_pred))))

    def result(self):
        return self.value

x, y = rng.normal(size=(24, 3)).astype("float32"), rng.normal(size=(24, 2)).astype("float32")
model = keras.Sequential([keras.Input((3,)), layers.Dense(8, activation=keras.activations.gelu), layers.Dense(2)])
model.compile("adam", loss=distance, metrics=[Largest()])
model.fit(x, y, epochs=2, verbose=0)
score = model.evaluate(x, y, verbose=0)
""",
    "sequence to sequence with states": """
encoder, decoder = rng.random((20, 6, 5)).astype("float32"), rng.random((20, 4, 7)).astype("float32")
first = keras.Input(shape=(None, 5))
_, h, c = layers.LSTM(8, return_state=True)(first)
second = keras.Input(shape=(None, 7))
states = layers.LSTM(8, return_sequences=True)(second, initial_state=[h, c])
outputs = layers.TimeDistributed(layers.Dense(7, activation="softmax"))(states)
model = keras.Model([first, second], outputs)
model.compile(optimizer="rmsprop", loss="categorical_crossentropy")
model.fit([encoder, decoder], np.eye(7)[rng.integers(0, 7, (20, 4))], batch_size=10, epochs=1, verbose=0)
score = model.predict([encoder, decoder], verbose=0)
""",
    "sequences, one-hot labels, a registered layer and a saved model": """
import os, tempfile
from keras.utils import pad_sequences, to_categorical

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
""",
    "windows over a series and nested structures": """
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
""",
}


def run(text: str) -> Any:
    scope: dict[str, Any] = {}
    exec(compile(text, "<script>", "exec"), scope)
    return np.asarray(scope["score"], dtype="float64")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", SCRIPTS)
def test_runs_with_the_import_changed(name: str) -> None:
    text = (HEAD + SCRIPTS[name]).replace("import keras\n", "import unilayers as keras\n")
    score = run(text.replace("from keras import", "from unilayers import"))
    assert np.isfinite(score).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SCRIPTS)
def test_the_script_is_one_for_keras(name: str) -> None:
    pytest.importorskip("keras")
    ours = (HEAD + SCRIPTS[name]).replace("import keras\n", "import unilayers as keras\n")
    score = run(ours.replace("from keras import", "from unilayers import"))
    assert run(HEAD + SCRIPTS[name]).shape == score.shape
