"""Objects that look on while a model trains."""

from unilayers.callbacks.base import Callback, CallbackList, History, LambdaCallback, ProgbarLogger
from unilayers.callbacks.files import BackupAndRestore, CSVLogger, ModelCheckpoint
from unilayers.callbacks.nonfinite import TerminateOnNaN
from unilayers.callbacks.remote import RemoteMonitor
from unilayers.callbacks.tensorboard import TensorBoard
from unilayers.callbacks.watch import (
    EarlyStopping,
    LearningRateScheduler,
    ReduceLROnPlateau,
    SwapEMAWeights,
)

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
    "ReduceLROnPlateau",
    "RemoteMonitor",
    "SwapEMAWeights",
    "TensorBoard",
    "TerminateOnNaN",
]
