"""Pictures: augmentation inside the model, separable convolutions with shortcuts, checkpoints, a saved model."""

import os
import tempfile

import numpy as np
import keras
from keras import layers

rng = np.random.default_rng(1)
images = rng.integers(0, 256, (40, 24, 24, 3)).astype("float32")
images[:20, 6:18, 6:18] = 255.0
labels = np.array([1] * 20 + [0] * 20)

data_augmentation = keras.Sequential(
    [
        layers.RandomFlip("horizontal"),
        layers.RandomRotation(0.1),
        layers.RandomZoom(0.1),
        layers.RandomContrast(0.1),
    ]
)


def make_model(input_shape, num_classes):
    inputs = keras.Input(shape=input_shape)
    x = data_augmentation(inputs)
    x = layers.Rescaling(1.0 / 255)(x)
    x = layers.Conv2D(8, 3, strides=2, padding="same")(x)
    x = layers.BatchNormalization()(x)
    x = layers.Activation("relu")(x)
    previous_block_activation = x
    for size in [8, 16]:
        x = layers.Activation("relu")(x)
        x = layers.SeparableConv2D(size, 3, padding="same")(x)
        x = layers.BatchNormalization()(x)
        x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
        residual = layers.Conv2D(size, 1, strides=2, padding="same")(previous_block_activation)
        x = layers.add([x, residual])
        previous_block_activation = x
    x = layers.GlobalAveragePooling2D()(x)
    units = 1 if num_classes == 2 else num_classes
    x = layers.Dropout(0.25)(x)
    return keras.Model(inputs, layers.Dense(units, activation=None)(x))


model = make_model(input_shape=(24, 24, 3), num_classes=2)
with tempfile.TemporaryDirectory() as folder:
    model.compile(
        optimizer=keras.optimizers.Adam(3e-3),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy(name="acc", threshold=0.0)],
    )
    path = os.path.join(folder, "save_at_{epoch}.keras")
    best = os.path.join(folder, "best.keras")
    callbacks = [
        keras.callbacks.ModelCheckpoint(path),
        keras.callbacks.ModelCheckpoint(best, monitor="val_loss", save_best_only=True, mode="min", verbose=0),
        keras.callbacks.CSVLogger(os.path.join(folder, "log.csv")),
    ]
    model.fit(images, labels, epochs=2, callbacks=callbacks, validation_data=(images, labels), batch_size=8, verbose=0)
    assert sorted(os.listdir(folder)) == ["best.keras", "log.csv", "save_at_1.keras", "save_at_2.keras"]
    again = keras.models.load_model(os.path.join(folder, "save_at_2.keras"))
    np.testing.assert_allclose(again.predict(images, verbose=0), model.predict(images, verbose=0), rtol=1e-4, atol=1e-5)

score = keras.ops.convert_to_numpy(keras.ops.sigmoid(model.predict(images[:4], verbose=0)))
