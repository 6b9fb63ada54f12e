"""Residual network with a schedule."""

import numpy as np
import keras
from keras import layers

rng = np.random.default_rng(0)


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
