"""The engine for GPUs of our own. Needs the extra `gpu`; importing it takes seconds, as PyTorch does."""

from workers.providers.diffusers.device import Device
from workers.providers.diffusers.provider import Diffusers

__all__ = ["Device", "Diffusers"]
