"""Pictures in files and as arrays; see `unilayers.utils`."""

from unilayers.utils.images import array_to_img, img_to_array, load_img, save_img, smart_resize

__all__ = ["array_to_img", "img_to_array", "load_img", "save_img", "smart_resize"]
