"""Maps the top folders onto the packages ``unilayers.backends``, ``unilayers.cli`` and ``unilayers.recipes``."""

from setuptools import find_packages, setup

MAPPED = ("backends", "cli", "recipes")

setup(
    packages=find_packages(include=["unilayers", "unilayers.*"])
    + [f"unilayers.{name}" for name in find_packages(include=[p for top in MAPPED for p in (top, f"{top}.*")])],
    package_dir={"unilayers": "unilayers"} | {f"unilayers.{top}": top for top in MAPPED},
    package_data={"unilayers": ["py.typed", "data/files/*"], "unilayers.recipes": ["*.yaml"]},
)
