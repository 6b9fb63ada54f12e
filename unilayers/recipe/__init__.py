"""Recipes: a model, its data and its training as YAML; checked against the classes' own fields, with clear errors.

>>> recipe = load_recipe("digits-mlp", overrides=["fit.epochs=1"])
>>> recipe.build().output_shape
(None, 10)
"""

from unilayers.recipe.fit import check_fit
from unilayers.recipe.recipe import Parts, Recipe, load_recipe, shipped
from unilayers.recipe.run import Interrupted, Result, evaluate_run, open_run, read_history, recipe_file, scores

__all__ = [
    "Interrupted",
    "Parts",
    "Recipe",
    "Result",
    "check_fit",
    "evaluate_run",
    "load_recipe",
    "open_run",
    "read_history",
    "recipe_file",
    "scores",
    "shipped",
]
