"""Preprocessing of sound: spectrograms, by convolution with waves."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from unilayers import ops
from unilayers.errors import UnilayersError
from unilayers.hints import NonNegativeFloat, PositiveFloat, PositiveInt
from unilayers.initializers import STFT, Window, window_of
from unilayers.layers.base import Layer
from unilayers.layers.spatial import DataFormat

LEAST = 1e-7  # what powers and logarithms are kept above, as in Keras


class STFTSpectrogram(Layer):
    """The spectrum of each of the frames that a signal is cut into; the waves are weights, which training may change.

    Shapes: x ``(batch, time, channels)`` -> ``(batch, frames, channels * bins)``, or with ``expand_dims`` ``(batch,
    frames, bins, channels)``; bins are ``fft_length // 2 + 1``, and twice as many for the mode "stft". With
    "channels_first" x ``(batch, channels, time)`` -> ``(batch, channels * bins, frames)`` or ``(batch, channels,
    frames, bins)``.

    Args:
        mode: "real" or "imag" part, "angle", "stft" (both parts), "magnitude", "log" of it, or "psd", the power where
            all but the first and the last bin count twice.
        frame_length: Samples in a frame.
        frame_step: Samples from one frame to the next, at most ``frame_length``; half of it if None.
        fft_length: Samples in which bin k has k waves, at least ``frame_length``; the power of two from there if None.
        window: See ``initializers.STFT``.
        periodic: Likewise.
        scaling: Likewise.
        padding: "valid", or "same" for frames over the ends, filled up with zeros.
        expand_dims: Whether bins and channels have axes of their own.
        data_format: "channels_last" (also None) or "channels_first".

    Raises:
        UnilayersError: for a step above, or an ``fft_length`` below ``frame_length``.
        ShapeError: if x has another number of axes.

    Example:
        >>> x = np.cos(np.arange(32) * 2 * np.pi / 8).reshape(1, 32, 1)  # 2 waves in 16 samples
        >>> STFTSpectrogram("magnitude", 16)(x).argmax(-1)
        array([[2, 2, 2]])
    """

    mode: Literal["log", "magnitude", "psd", "real", "imag", "angle", "stft"] = "log"
    frame_length: PositiveInt = 256
    frame_step: PositiveInt | None = None
    fft_length: PositiveInt | None = None
    window: Window = "hann"
    periodic: bool = False
    scaling: Literal["density", "spectrum"] | None = "density"
    padding: Literal["valid", "same"] = "valid"
    expand_dims: bool = False
    data_format: DataFormat = None

    def __post_init__(self) -> None:
        self._step = self.frame_step or max(self.frame_length // 2, 1)
        self._length = self.fft_length or 2 ** math.ceil(math.log2(self.frame_length))
        if self._step > self.frame_length or self._length < self.frame_length:
            raise UnilayersError(
                "lengths that do not fit", where="STFTSpectrogram", expected="frame_step <= frame_length <= fft_length",
                received=f"{self._step}, {self.frame_length}, {self._length}",
            )  # fmt: skip

    def check_input(self, x: Any) -> None:
        self.require_ndim(x, exactly=3)

    def build(self, input_shape: Any) -> None:
        shape = (self.frame_length, 1, self._length // 2 + 1)
        self._kernels = [
            self.add_weight(shape, STFT(side, self.window, self.scaling, self.periodic), name=f"{side}_kernel")
            for side in ("real", "imag")
            if self.mode != {"real": "imag", "imag": "real"}[side]
        ]

    def call(self, x: Any) -> Any:
        first = self.data_format == "channels_first"
        x = x if first else ops.moveaxis(x, -1, 1)
        batch, channels, time = ops.shape_of(x)
        flat = ops.reshape(x, (batch * channels, time, 1))
        y = self._of(*(ops.conv(flat, kernel, self._step, self.padding) for kernel in self._kernels))
        frames, bins = ops.shape_of(y)[1:]
        y = ops.reshape(y, (batch, channels, frames, bins))
        if self.expand_dims:
            return y if first else ops.moveaxis(y, 1, -1)
        y = ops.reshape(ops.moveaxis(y, 2, 1), (batch, frames, channels * bins))
        return ops.moveaxis(y, 1, -1) if first else y

    def _of(self, one: Any, imaginary: Any = None) -> Any:
        """What the mode makes of the two parts: ``(..., bins)``."""
        if imaginary is None:
            return one
        if self.mode == "stft":
            return ops.concat([one, imaginary], -1)
        if self.mode == "angle":
            return ops.arctan2(imaginary, one)
        power = ops.add(ops.square(one), ops.square(imaginary))
        if self.mode == "psd":
            twice = np.ones(self._length // 2 + 1, "float32")
            twice[1:-1] = 2.0
            return ops.multiply(power, ops.astype(twice, ops.dtype_of(power)))
        magnitude = ops.sqrt(ops.maximum(power, LEAST))
        return magnitude if self.mode == "magnitude" else ops.log(ops.maximum(magnitude, LEAST))


class MelSpectrogram(Layer):
    """The power of a signal in bands as wide as the ear hears them, in decibels.

    The frames are centred: half a frame of the signal's mirror image is before it and after it.

    Shapes: x ``(batch, time)`` or ``(time,)`` -> ``(batch, num_mel_bins, frames)`` or ``(num_mel_bins, frames)``.

    Args:
        fft_length: Samples in a frame.
        sequence_stride: Samples from one frame to the next.
        sequence_length: Samples under the window, in the middle of the frame; all if None.
        window: See ``initializers.STFT``; periodic.
        sampling_rate: Samples per second.
        num_mel_bins: How many bands.
        min_freq: The lowest frequency in hertz.
        max_freq: The highest; half the sampling rate if None.
        power_to_db: Whether the result is in decibels.
        top_db: Decibels below the largest value of the batch that count for nothing.
        mag_exp: What the magnitude is raised to: 2 for the power.
        min_power: What powers are kept above.
        ref_power: The power that has 0 decibels.

    Raises:
        UnilayersError: if ``sequence_length`` is above ``fft_length``.
        ShapeError: if x has another number of axes.

    Reference:
        Young et al., The HTK Book, 2006, section 5.4 (the bands).

    Example:
        >>> MelSpectrogram(256, 128, num_mel_bins=20)(np.ones((2, 1000), "float32")).shape
        (2, 20, 8)
    """

    fft_length: PositiveInt = 2048
    sequence_stride: PositiveInt = 512
    sequence_length: PositiveInt | None = None
    window: Window = "hann"
    sampling_rate: PositiveInt = 16000
    num_mel_bins: PositiveInt = 128
    min_freq: NonNegativeFloat = 20.0
    max_freq: PositiveFloat | None = None
    power_to_db: bool = True
    top_db: NonNegativeFloat = 80.0
    mag_exp: PositiveFloat = 2.0
    min_power: PositiveFloat = 1e-10
    ref_power: float = 1.0

    def __post_init__(self) -> None:
        length = self.sequence_length or self.fft_length
        if length > self.fft_length:
            raise UnilayersError(
                "sequence_length is above fft_length", where="MelSpectrogram", expected=f"at most {self.fft_length}",
                received=str(length),
            )  # fmt: skip
        before = (self.fft_length - length) // 2
        window = np.pad(window_of(self.window, length, True), (before, self.fft_length - length - before))
        shape = (self.fft_length, 1, self.fft_length // 2 + 1)
        waves = [STFT(side, None, None)(shape, "float64") * window[:, None, None] for side in ("real", "imag")]
        self._waves = np.concatenate(waves, -1)
        self._bands = mel_bands(
            self.num_mel_bins, shape[-1], self.sampling_rate, self.min_freq, self.max_freq or self.sampling_rate // 2
        )

    def check_input(self, x: Any) -> None:
        self.require_ndim(x, at_least=1)
        if len(ops.shape_of(x)) > 2:
            self.require_ndim(x, exactly=2)

    def call(self, x: Any) -> Any:
        exact = "float64" if self.compute_dtype == "float64" else "float32"
        single, x = len(ops.shape_of(x)) == 1, ops.astype(x, exact)
        x = ops.expand_dims(x, 0) if single else x
        time, half = ops.shape_of(x)[1], self.fft_length // 2
        start = ops.flip(ops.slice_axis(x, 1, 1, half + 1), 1)
        end = ops.flip(ops.slice_axis(x, 1, time - half - 1, time - 1), 1)
        framed = ops.expand_dims(ops.concat([start, x, end], 1), -1)
        parts = ops.conv(framed, self._waves.astype(exact), self.sequence_stride)
        bins = half + 1
        real, imaginary = (ops.slice_axis(parts, 2, i * bins, (i + 1) * bins) for i in range(2))
        magnitude = ops.sqrt(ops.add(ops.square(real), ops.square(imaginary)))
        y = ops.matmul(ops.power(magnitude, self.mag_exp), self._bands.astype(exact))
        if self.power_to_db:
            y = ops.multiply(ops.log10(ops.maximum(y, self.min_power)), 10.0)
            y = ops.subtract(y, 10.0 * math.log10(max(abs(self.ref_power), self.min_power)))
            y = ops.maximum(y, ops.subtract(ops.max(y), self.top_db))
        y = ops.astype(ops.matrix_transpose(y), self.compute_dtype)
        return ops.squeeze(y, 0) if single else y


def mel_bands(count: int, bins: int, sampling_rate: float, low: float, high: float) -> np.ndarray:
    """The share of each bin of a spectrum in each band, float64 ``(bins, count)``: triangles on the mel scale.

    Args:
        count: How many bands.
        bins: How many bins, from 0 to half the sampling rate.
        sampling_rate: Samples per second.
        low: Where the first band begins, in hertz.
        high: Where the last one ends.

    Example:
        >>> mel_bands(2, 5, 8000, 0.0, 4000.0).round(2)
        array([[0.  , 0.  ],
               [0.6 , 0.4 ],
               [0.  , 0.87],
               [0.  , 0.38],
               [0.  , 0.  ]])
    """

    def mel(hertz: Any) -> Any:
        return 1127.0 * np.log1p(np.asarray(hertz) / 700.0)

    at = mel(np.linspace(0.0, sampling_rate / 2, bins))[:, None]
    edges = np.linspace(mel(low), mel(high), count + 2)
    rising = (at - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - at) / (edges[2:] - edges[1:-1])
    shares = np.maximum(0.0, np.minimum(rising, falling))
    shares[0] = 0.0  # the mean of the signal is in no band
    return shares
