"""Layers: Keras's names, arguments, defaults, weight names and layouts, on every backend."""

# ruff: noqa: F401

from unilayers.layers.activation import ELU, Activation, LeakyReLU, ReLU, Softmax
from unilayers.layers.base import Layer
from unilayers.layers.convolutional import Conv1D, Conv2D, Conv3D
from unilayers.layers.core import Dense, Embedding, Identity, Input, InputLayer, Lambda
from unilayers.layers.merging import (
    Add,
    Average,
    Concatenate,
    Maximum,
    Minimum,
    Multiply,
    Subtract,
    add,
    average,
    concatenate,
    maximum,
    minimum,
    multiply,
    subtract,
)
from unilayers.layers.normalization import BatchNormalization, LayerNormalization
from unilayers.layers.pooling import (
    AveragePooling1D,
    AveragePooling2D,
    AveragePooling3D,
    GlobalAveragePooling1D,
    GlobalAveragePooling2D,
    GlobalAveragePooling3D,
    GlobalMaxPooling1D,
    GlobalMaxPooling2D,
    GlobalMaxPooling3D,
    MaxPooling1D,
    MaxPooling2D,
    MaxPooling3D,
)
from unilayers.layers.preprocessing import Rescaling
from unilayers.layers.regularization import Dropout
from unilayers.layers.reshaping import Flatten, Permute, Reshape, ZeroPadding1D, ZeroPadding2D, ZeroPadding3D

# Keras's second names.
Convolution1D, Convolution2D, Convolution3D = Conv1D, Conv2D, Conv3D
MaxPool1D, MaxPool2D, MaxPool3D = MaxPooling1D, MaxPooling2D, MaxPooling3D
AvgPool1D, AvgPool2D, AvgPool3D = AveragePooling1D, AveragePooling2D, AveragePooling3D
GlobalMaxPool1D, GlobalMaxPool2D, GlobalMaxPool3D = GlobalMaxPooling1D, GlobalMaxPooling2D, GlobalMaxPooling3D
GlobalAvgPool1D, GlobalAvgPool2D, GlobalAvgPool3D = (
    GlobalAveragePooling1D,
    GlobalAveragePooling2D,
    GlobalAveragePooling3D,
)
