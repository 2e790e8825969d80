"""Images: the catalogue's files, this host's bases, disks, config drives, injection."""

from blocks.images.build import BuildProgress, BuiltImage
from blocks.images.cache import FetchProgress
from blocks.images.inspection import Inspection, inspect
from blocks.images.recipe import BusyboxRecipe, DebianRecipe, Recipe
from blocks.images.store import ImageStore

__all__ = [
    "BuildProgress",
    "BuiltImage",
    "BusyboxRecipe",
    "DebianRecipe",
    "FetchProgress",
    "ImageStore",
    "Inspection",
    "Recipe",
    "inspect",
]
