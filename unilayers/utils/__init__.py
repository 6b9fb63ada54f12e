"""What scripts use around models: labels and sequences, files, folders, pictures of models, seeds."""

from unilayers.config import (
    disable_interactive_logging,
    enable_interactive_logging,
    is_interactive_logging_enabled,
)
from unilayers.data import Pipeline, PyDataset
from unilayers.saving import (
    CustomObjectScope,
    custom_object_scope,
    deserialize_keras_object,
    get_custom_objects,
    get_registered_name,
    get_registered_object,
    register_keras_serializable,
    serialize_keras_object,
)

from .arrays import normalize, pad_sequences, to_categorical
from .files import cache_folder, get_file
from .folders import audio_dataset_from_directory, image_dataset_from_directory, text_dataset_from_directory
from .general import (
    Config,
    clear_session,
    get_source_inputs,
    is_keras_tensor,
    pack_x_y_sample_weight,
    set_random_seed,
    standardize_dtype,
    unpack_x_y_sample_weight,
)
from .images import array_to_img, img_to_array, load_img, save_img
from .plot import model_to_dot, plot_model
from .progress import Progbar
from .series import split_dataset, timeseries_dataset_from_array

Sequence = PyDataset  # Keras's older name

__all__ = [
    "Config",
    "CustomObjectScope",
    "Pipeline",
    "Progbar",
    "PyDataset",
    "Sequence",
    "array_to_img",
    "audio_dataset_from_directory",
    "cache_folder",
    "clear_session",
    "custom_object_scope",
    "deserialize_keras_object",
    "disable_interactive_logging",
    "enable_interactive_logging",
    "get_custom_objects",
    "get_file",
    "get_registered_name",
    "get_registered_object",
    "get_source_inputs",
    "image_dataset_from_directory",
    "img_to_array",
    "is_interactive_logging_enabled",
    "is_keras_tensor",
    "load_img",
    "model_to_dot",
    "normalize",
    "pack_x_y_sample_weight",
    "pad_sequences",
    "plot_model",
    "register_keras_serializable",
    "save_img",
    "serialize_keras_object",
    "set_random_seed",
    "split_dataset",
    "standardize_dtype",
    "text_dataset_from_directory",
    "timeseries_dataset_from_array",
    "to_categorical",
    "unpack_x_y_sample_weight",
]
