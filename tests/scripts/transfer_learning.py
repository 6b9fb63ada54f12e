"""Features of a trained network for another task: inner outputs, freezing, then fine-tuning with a small rate."""

import numpy as np
import keras
from keras import layers

rng = np.random.default_rng(0)
x = rng.random((64, 16, 16, 3)).astype("float32")
y = (x[..., 0].mean((1, 2)) > x[..., 1].mean((1, 2))).astype("int32")

inputs = keras.Input((16, 16, 3))
h = layers.Conv2D(8, 3, activation="relu", name="block1")(inputs)
h = layers.BatchNormalization(name="bn1")(h)
h = layers.MaxPooling2D(2, name="pool1")(h)
h = layers.Conv2D(8, 3, activation="relu", name="block2")(h)
h = layers.BatchNormalization(name="bn2")(h)
pooled = layers.GlobalAveragePooling2D(name="features")(h)
source = keras.Model(inputs, layers.Dense(10, activation="softmax", name="classes")(pooled))
source.compile("adam", "sparse_categorical_crossentropy")
source.fit(x, rng.integers(0, 10, 64), epochs=1, verbose=0)

base_model = keras.Model(source.input, source.get_layer("features").output, name="base")
maps = keras.Model(source.inputs, [layer.output for layer in source.layers if "block" in layer.name])
assert [m.shape[-1] for m in maps.predict(x[:2], verbose=0)] == [8, 8]

base_model.trainable = False
inputs = keras.Input(shape=(16, 16, 3))
h = layers.RandomFlip("horizontal")(inputs)
h = layers.Normalization(mean=0.5, variance=0.1)(h)
h = base_model(h, training=False)
h = layers.Dropout(0.2)(h)
model = keras.Model(inputs, layers.Dense(1)(h))
assert len(model.trainable_weights) == 2 and len(model.non_trainable_weights) > 8
loss = keras.losses.BinaryCrossentropy(from_logits=True)
model.compile(optimizer=keras.optimizers.Adam(), loss=loss, metrics=[keras.metrics.BinaryAccuracy()])
before = base_model.get_weights()
model.fit(x, y, epochs=1, batch_size=16, verbose=0)
assert all((a == b).all() for a, b in zip(before, base_model.get_weights()))

base_model.trainable = True
for layer in base_model.layers[:4]:
    layer.trainable = False
model.compile(optimizer=keras.optimizers.Adam(1e-4), loss=loss, metrics=[keras.metrics.BinaryAccuracy()])
model.fit(x, y, epochs=1, batch_size=16, verbose=0)
after = base_model.get_weights()
assert (before[0] == after[0]).all() and not (before[6] == after[6]).all()
score = model.evaluate(x, y, verbose=0)
