"""vinnow: choose which visual-instruction data is worth training on."""

__version__ = "0.1.0"
