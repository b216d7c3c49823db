"""Secrets that must be read again, encrypted at rest: webhook secrets, keys of customers' buckets."""

import base64
from typing import Final

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from app.errors import SetupError
from app.settings import Settings

_PURPOSE: Final = b"darkroom: secrets at rest"


class Vault:
    """Encrypts with the newest key, and reads what any of the keys has encrypted; thread-safe.

    The keys are DARKROOM_ENCRYPTION_KEYS, newest first; without them one is derived from DARKROOM_SECRET_KEY
    (HKDF with SHA-256, RFC 5869).

    Raises:
        SetupError: a key is not 32 bytes in URL-safe base64.
    """

    def __init__(self, settings: Settings) -> None:
        given = settings.encryption_keys.get_secret_value() if settings.encryption_keys else ""
        keys = [key.strip() for key in given.split(",") if key.strip()]
        try:
            self._fernet = MultiFernet([Fernet(key) for key in keys or [_derived(settings)]])
        except ValueError:
            raise SetupError(
                "DARKROOM_ENCRYPTION_KEYS: each key must be 32 bytes in URL-safe base64; make one with: "
                "python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())'"
            ) from None

    def encrypt(self, secret: str) -> str:
        """Give the token to keep in place of a secret; another one each time."""
        return self._fernet.encrypt(secret.encode()).decode()

    def decrypt(self, token: str) -> str:
        """Give the secret behind a token.

        Raises:
            SetupError: none of the keys has encrypted it.
        """
        try:
            return self._fernet.decrypt(token.encode()).decode()
        except InvalidToken:
            raise SetupError(
                "A stored secret cannot be read: put the key it was encrypted with, or the former "
                "DARKROOM_SECRET_KEY's, back into DARKROOM_ENCRYPTION_KEYS."
            ) from None

    def rotate(self, token: str) -> str:
        """Give the same secret's token under the newest key."""
        try:
            return self._fernet.rotate(token.encode()).decode()
        except InvalidToken:
            raise SetupError("A stored secret cannot be read, so it cannot be encrypted anew.") from None


def _derived(settings: Settings) -> str:
    secret = settings.secret_key.get_secret_value().encode()
    return base64.urlsafe_b64encode(HKDF(SHA256(), 32, salt=None, info=_PURPOSE).derive(secret)).decode()
