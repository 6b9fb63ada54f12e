"""One-hot targets and callbacks."""

import numpy as np
import keras
from keras import layers

rng = np.random.default_rng(0)

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
history = model.fit(
    x,
    y,
    epochs=4,
    validation_data=(x, y),
    verbose=0,
    callbacks=[
        keras.callbacks.EarlyStopping(patience=2, restore_best_weights=True),
        keras.callbacks.ReduceLROnPlateau(factor=0.5, patience=1),
    ],
)
score = history.history["val_loss"]
