"""Well-known networks as functions, for benchmarks and as examples; weights are new, nothing is downloaded.

``library`` is who makes the layers: unilayers, or another that has the same words, such as Keras. So whoever compares
the two describes a network once; this module imports neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

VGG = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}  # convolutions of each stage
RESNET = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 200: (3, 24, 36, 3)}  # blocks of each stage
BOTTLENECK = 50  # the depth from which on blocks are narrow in the middle
WIDTHS = (64, 128, 256, 512)
IMAGE = (224, 224, 3)


def dense(sizes: Sequence[int] = (784, 512, 512, 10), use_bias: bool = True, library: Any = None) -> Any:
    """Dense layers with ReLU between them.

    Args:
        sizes: Widths, from the input on.
        use_bias: Whether layers add one.
        library: Who makes the layers; unilayers if None.

    Example:
        >>> dense((8, 4, 2)).count_params()
        46
    """
    keras = library or import_module("unilayers")
    last = len(sizes) - 2
    layers = [
        keras.layers.Dense(n, None if i == last else "relu", use_bias=use_bias, name=f"dense{i}")
        for i, n in enumerate(sizes[1:])
    ]
    return keras.Sequential([keras.Input((sizes[0],)), *layers])


def convnet(
    sizes: Sequence[int] = (32, 64, 10), shape: Sequence[int] = (28, 28, 1), rate: float = 0.5, library: Any = None
) -> Any:
    """Two convolutions with pooling, dropout, one dense layer.

    Args:
        sizes: Filters of the two, classes.
        shape: Of a picture.
        rate: Of dropout.
        library: Who makes the layers; unilayers if None.

    Example:
        >>> convnet().output_shape
        (None, 10)
    """
    keras = library or import_module("unilayers")
    layers, (first, second, classes) = keras.layers, sizes
    return keras.Sequential(
        [
            keras.Input(tuple(shape)),
            layers.Conv2D(first, 3, activation="relu", name="conv1"),
            layers.MaxPooling2D(),
            layers.Conv2D(second, 3, activation="relu", name="conv2"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(rate),
            layers.Dense(classes, name="dense"),
        ]
    )


def recurrent(
    units: int = 128, classes: int = 10, shape: Sequence[int] = (64, 32), cell: str = "LSTM", library: Any = None
) -> Any:
    """A recurrent layer and a dense one behind its last step.

    Args:
        units: Width of the state.
        classes: Outputs.
        shape: Steps, and features of a step.
        cell: ``LSTM`` or ``GRU``.
        library: Who makes the layers; unilayers if None.

    Example:
        >>> recurrent(4, 2, (5, 3)).count_params()
        138
    """
    keras = library or import_module("unilayers")
    cells = getattr(keras.layers, cell)(units, name="cells")
    return keras.Sequential([keras.Input(tuple(shape)), cells, keras.layers.Dense(classes, name="dense")])


def vgg(
    depth: int = 16, shape: Sequence[int] = IMAGE, classes: int = 1000, hidden: int = 4096, library: Any = None
) -> Any:
    """Stages of 3x3 convolutions with pooling, three dense layers, dropout.

    Args:
        depth: 16 or 19 layers with weights.
        shape: Of a picture.
        classes: Outputs.
        hidden: Width of the first two dense layers.
        library: Who makes the layers; unilayers if None.

    Reference: Simonyan, Zisserman, Very deep convolutional networks for large-scale image recognition, 2014,
    arXiv 1409.1556: columns D and E.

    Example:
        >>> vgg(16).count_params()
        138357544
    """
    keras = library or import_module("unilayers")
    layers, found = keras.layers, [keras.Input(tuple(shape))]
    for stage, (count, filters) in enumerate(zip(VGG[depth], (*WIDTHS, 512), strict=True), 1):
        for i in range(1, count + 1):
            found.append(layers.Conv2D(filters, 3, padding="same", activation="relu", name=f"conv{stage}_{i}"))
        found.append(layers.MaxPooling2D(name=f"pool{stage}"))
    found.append(layers.Flatten(name="flatten"))
    for i in (1, 2):
        found += [layers.Dense(hidden, "relu", name=f"dense{i}"), layers.Dropout(0.5, name=f"dropout{i}")]
    return keras.Sequential([*found, layers.Dense(classes, name="dense3")])


def residual_blocks(
    blocks: Sequence[int], widths: Sequence[int], expansion: int = 1
) -> Iterator[tuple[str, int, int, int]]:
    """The blocks of a residual network: name, channels that come in, filters, stride.

    Args:
        blocks: How many each stage has.
        widths: Filters of each stage.
        expansion: How many times as many channels go out.

    Example:
        >>> list(residual_blocks((1, 2), (64, 128)))[1:]
        [('block1', 64, 128, 2), ('block2', 128, 128, 1)]
    """
    number, before = 0, widths[0]
    for stage, (count, filters) in enumerate(zip(blocks, widths, strict=True)):
        for i in range(count):
            yield f"block{number}", before, filters, 2 if stage and not i else 1
            number, before = number + 1, filters * expansion


def resnet(
    depth: int = 18,
    shape: Sequence[int] = IMAGE,
    classes: int = 1000,
    widths: Sequence[int] = WIDTHS,
    small: bool = False,
    library: Any = None,
) -> Any:
    """A residual network; strides are in the 3x3 convolutions, zeros are padded on all sides.

    Args:
        depth: 18, or with narrow blocks 50 or 200.
        shape: Of a picture.
        classes: Outputs.
        widths: Filters of the four stages.
        small: Whether the first layer is for small pictures: 3x3 without stride or pooling.
        library: Who makes the layers; unilayers if None.

    Reference: He, Zhang, Ren, Sun, Deep residual learning for image recognition, 2015, arXiv 1512.03385. The 200 layers
    are those of their second paper, arXiv 1603.05027, in the order of the first.

    Example:
        >>> resnet(18).count_params()
        11699112
    """
    keras = library or import_module("unilayers")
    layers, narrow = keras.layers, depth >= BOTTLENECK

    def conv(x: Any, filters: int, size: int, stride: int, prefix: str, number: int) -> Any:
        if stride > 1 and size > 1:
            x = layers.ZeroPadding2D(size // 2, name=f"{prefix}pad{number}")(x)
        padding = "valid" if stride > 1 else "same"
        x = layers.Conv2D(filters, size, stride, padding, use_bias=False, name=f"{prefix}conv{number}")(x)
        return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{prefix}norm{number}")(x)

    def relu(x: Any, prefix: str, number: int) -> Any:
        return layers.ReLU(name=f"{prefix}relu{number}")(x)

    inputs = keras.Input(tuple(shape))
    x = relu(conv(inputs, widths[0], 3 if small else 7, 1 if small else 2, "", 0), "", 0)
    if not small:
        x = layers.MaxPooling2D(3, 2, name="pool")(layers.ZeroPadding2D(1, name="pad")(x))
    for name, before, filters, stride in residual_blocks(RESNET[depth], widths, 4 if narrow else 1):
        prefix, after = f"{name}_", 4 * filters if narrow else filters
        kinds = (
            [(filters, 1, 1), (filters, 3, stride), (after, 1, 1)] if narrow else [(filters, 3, stride), (after, 3, 1)]
        )
        y = x
        for i, (width, size, step) in enumerate(kinds, 1):
            y = conv(y, width, size, step, prefix, i)
            y = relu(y, prefix, i) if i < len(kinds) else y
        if stride > 1 or before != after:
            x = conv(x, after, 1, stride, prefix, len(kinds) + 1)
        x = relu(layers.Add(name=f"{prefix}add")([y, x]), prefix, len(kinds))
    return keras.Model(inputs, layers.Dense(classes, name="dense")(layers.GlobalAveragePooling2D(name="mean")(x)))
