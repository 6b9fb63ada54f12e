"""Well-known data sets, as NumPy arrays: ``(x_train, y_train), (x_test, y_test) = datasets.mnist.load_data()``.

Each is fetched once into the cache (`unilayers.utils.cache_folder`) and checked by its hash; ``digits`` comes with the
package. `unilayers.data.load` reads files that are there already.
"""

from . import (
    boston_housing,
    california_housing,
    cifar10,
    cifar100,
    digits,
    fashion_mnist,
    imdb,
    mnist,
    reuters,
)

__all__ = [
    "boston_housing",
    "california_housing",
    "cifar10",
    "cifar100",
    "digits",
    "fashion_mnist",
    "imdb",
    "mnist",
    "reuters",
]
