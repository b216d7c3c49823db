"""Customers' own buckets: their details, and what is written into them.

`Buckets` keeps the details, encrypted, after it has tried them; `CustomerBucket` writes. Both reach a server
that a stranger named, so they go through the guard of `app.safe_http`, and whatever that server does ends in
time and as one of our errors.
"""

from app.buckets.client import CustomerBucket
from app.buckets.details import DeployType, Details, Place, place_of, public_link
from app.buckets.targets import Buckets

__all__ = [
    "Buckets",
    "CustomerBucket",
    "DeployType",
    "Details",
    "Place",
    "place_of",
    "public_link",
]
