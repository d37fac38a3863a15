"""Share heads and features on the Hugging Face hub."""

from .heads import Pulled, Pushed, pull, push

__all__ = ["Pulled", "Pushed", "pull", "push"]
