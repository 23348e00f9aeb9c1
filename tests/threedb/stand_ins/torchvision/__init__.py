"""Stands in for torchvision, of which there is no build for machines without a GPU.

3DB imports ``transforms`` when it starts, and uses it in its clients only.
"""

from torchvision import transforms

__all__ = ["transforms"]
