"""A small network learns from a larger one: a model with a loss of its own in ``compute_loss``."""

import numpy as np
import keras
from keras import layers, ops

rng = np.random.default_rng(0)
x = rng.normal(size=(96, 12)).astype("float32")
y = (x[:, :3].sum(1) > 0).astype("int32") + (x[:, 3] > 0).astype("int32")


class Distiller(keras.Model):
    def __init__(self, student, teacher):
        super().__init__()
        self.teacher = teacher
        self.student = student

    def compile(self, optimizer, metrics, student_loss_fn, distillation_loss_fn, alpha=0.1, temperature=3):
        super().compile(optimizer=optimizer, metrics=metrics)
        self.student_loss_fn = student_loss_fn
        self.distillation_loss_fn = distillation_loss_fn
        self.alpha = alpha
        self.temperature = temperature

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, allow_empty=False):
        teacher_pred = self.teacher(x, training=False)
        student_loss = self.student_loss_fn(y, y_pred)
        distillation_loss = self.distillation_loss_fn(
            ops.softmax(teacher_pred / self.temperature, axis=1),
            ops.softmax(y_pred / self.temperature, axis=1),
        ) * (self.temperature**2)
        return self.alpha * student_loss + (1 - self.alpha) * distillation_loss

    def call(self, x):
        return self.student(x)


teacher = keras.Sequential([keras.Input((12,)), layers.Dense(32, activation="relu"), layers.Dense(3)], name="teacher")
student = keras.Sequential([keras.Input((12,)), layers.Dense(4, activation="relu"), layers.Dense(3)], name="student")
teacher.compile(
    optimizer=keras.optimizers.Adam(0.01),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=[keras.metrics.SparseCategoricalAccuracy()],
)
teacher.fit(x, y, epochs=5, verbose=0)
kept = [w.copy() for w in teacher.get_weights()]

teacher.trainable = False
distiller = Distiller(student=student, teacher=teacher)
distiller.compile(
    optimizer=keras.optimizers.Adam(0.01),
    metrics=[keras.metrics.SparseCategoricalAccuracy()],
    student_loss_fn=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    distillation_loss_fn=keras.losses.KLDivergence(),
    alpha=0.1,
    temperature=10,
)
history = distiller.fit(x, y, epochs=5, verbose=0).history
assert history["loss"][-1] < history["loss"][0]
assert all((a == b).all() for a, b in zip(kept, teacher.get_weights()))
score = distiller.evaluate(x, y, verbose=0, return_dict=True)["sparse_categorical_accuracy"]
