"""Objects that look on while a model trains."""

from unilayers.callbacks.base import Callback, CallbackList, History, LambdaCallback, ProgressBar
from unilayers.callbacks.files import BackupAndRestore, CSVLogger, ModelCheckpoint
from unilayers.callbacks.watch import (
    EarlyStopping,
    LearningRateScheduler,
    ReduceLROnPlateau,
    SwapEMAWeights,
    TerminateOnNaN,
)

ProgbarLogger = ProgressBar  # Keras's name

__all__ = [
    "BackupAndRestore",
    "CSVLogger",
    "Callback",
    "CallbackList",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ProgbarLogger",
    "ProgressBar",
    "ReduceLROnPlateau",
    "SwapEMAWeights",
    "TerminateOnNaN",
]
