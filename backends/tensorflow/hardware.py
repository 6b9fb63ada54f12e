"""TensorFlow's devices, and why there may be none."""

from __future__ import annotations

import tensorflow as tf

from unilayers.hardware import Facts, Hardware, host


def facts(device: str) -> Facts:
    """TensorFlow does not say how much memory a device has."""
    if device == "cpu":
        return host()
    gpu = tf.config.list_physical_devices("GPU")[int(device.partition(":")[2])]
    found = tf.config.experimental.get_device_details(gpu)
    capability = ".".join(map(str, found.get("compute_capability", ())))
    return Facts(found.get("device_name", ""), 0, capability)


def missing() -> str:
    if tf.config.list_physical_devices("GPU"):
        return ""
    if not tf.test.is_built_with_cuda():
        return "this TensorFlow is built without CUDA: pip install 'tensorflow[and-cuda]'"
    return "TensorFlow finds no device; it needs CUDA's libraries: pip install 'tensorflow[and-cuda]'"


def exhausted(error: BaseException) -> bool:
    return isinstance(error, (MemoryError, tf.errors.ResourceExhaustedError))


def deterministic(on: bool) -> None:
    """TensorFlow has no way back. Ops without a deterministic kernel raise an error."""
    if on:
        tf.config.experimental.enable_op_determinism()


HARDWARE = Hardware(facts, missing, exhausted, deterministic)
