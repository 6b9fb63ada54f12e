"""A vision transformer: patches cut out by an op, positions, attention blocks, label smoothing, a warm-up schedule."""

import numpy as np
import keras
from keras import layers, ops

rng = np.random.default_rng(0)
num_classes, image_size, patch_size, projection_dim, num_heads = 3, 12, 4, 16, 2
num_patches = (image_size // patch_size) ** 2
x_train = rng.random((48, image_size, image_size, 3)).astype("float32")
y_train = keras.utils.to_categorical(rng.integers(0, num_classes, 48), num_classes)


class Patches(layers.Layer):
    def __init__(self, patch_size):
        super().__init__()
        self.patch_size = patch_size

    def call(self, images):
        shape = ops.shape(images)
        patches = ops.image.extract_patches(images, size=self.patch_size)
        count = (shape[1] // self.patch_size) * (shape[2] // self.patch_size)
        return ops.reshape(patches, (shape[0], count, self.patch_size * self.patch_size * shape[3]))

    def get_config(self):
        config = super().get_config()
        config.update({"patch_size": self.patch_size})
        return config


class PatchEncoder(layers.Layer):
    def __init__(self, num_patches, projection_dim):
        super().__init__()
        self.num_patches = num_patches
        self.projection = layers.Dense(units=projection_dim)
        self.position_embedding = layers.Embedding(input_dim=num_patches, output_dim=projection_dim)

    def call(self, patch):
        positions = ops.expand_dims(ops.arange(start=0, stop=self.num_patches, step=1), axis=0)
        return self.projection(patch) + self.position_embedding(positions)


def mlp(x, hidden_units, dropout_rate):
    for units in hidden_units:
        x = layers.Dense(units, activation=keras.activations.gelu)(x)
        x = layers.Dropout(dropout_rate)(x)
    return x


inputs = keras.Input(shape=(image_size, image_size, 3))
encoded_patches = PatchEncoder(num_patches, projection_dim)(Patches(patch_size)(inputs))
for _ in range(2):
    x1 = layers.LayerNormalization(epsilon=1e-6)(encoded_patches)
    attention_output = layers.MultiHeadAttention(num_heads=num_heads, key_dim=projection_dim, dropout=0.1)(x1, x1)
    x2 = layers.Add()([attention_output, encoded_patches])
    x3 = layers.LayerNormalization(epsilon=1e-6)(x2)
    x3 = mlp(x3, hidden_units=[projection_dim * 2, projection_dim], dropout_rate=0.1)
    encoded_patches = layers.Add()([x3, x2])
representation = layers.LayerNormalization(epsilon=1e-6)(encoded_patches)
representation = layers.Dropout(0.5)(layers.Flatten()(representation))
logits = layers.Dense(num_classes)(mlp(representation, hidden_units=[32, 16], dropout_rate=0.5))
model = keras.Model(inputs=inputs, outputs=logits)

schedule = keras.optimizers.schedules.CosineDecay(1e-4, 20, warmup_target=1e-3, warmup_steps=5)
model.compile(
    optimizer=keras.optimizers.AdamW(learning_rate=schedule, weight_decay=1e-4, global_clipnorm=1.0),
    loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
    metrics=[
        keras.metrics.CategoricalAccuracy(name="accuracy"),
        keras.metrics.TopKCategoricalAccuracy(2, name="top-2-accuracy"),
    ],
)
history = model.fit(x=x_train, y=y_train, batch_size=16, epochs=2, validation_split=0.1, verbose=0)
assert "val_top-2-accuracy" in history.history
score = model.evaluate(x_train, y_train, verbose=0)
