"""Darkroom's web side: writes jobs down and hands out links; it never draws."""

__version__ = "0.1.0"
