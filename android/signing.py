"""The key that signs the APK. Android installs an update only if the same key has signed it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import tools
from failure import BuildError, run

PASSWORD = "POCKETGLM_KEYSTORE_PASSWORD"
DEBUG_PASSWORD = "android"
"""As in Google's tools: who can read the file may sign with it."""


@dataclass(frozen=True)
class SigningKey:
    """A key store, the key's name in it (None: its only key), and the password of both."""

    keystore: Path
    alias: str | None
    password: str


def chosen_key(keystore: Path | None, alias: str | None) -> SigningKey:
    """The user's own by option or environment, else the debug key."""
    if keystore is None and (named := os.environ.get("POCKETGLM_KEYSTORE")):
        keystore = Path(named)
    alias = alias or os.environ.get("POCKETGLM_KEY_ALIAS")
    if keystore is None:
        return debug_key()
    if not keystore.is_file():
        raise BuildError(f"{keystore}: there is no key store")
    if not (password := os.environ.get(PASSWORD)):
        raise BuildError(f"{keystore} needs a password", f"Set {PASSWORD}")
    return SigningKey(keystore, alias, password)


def debug_key() -> SigningKey:
    """Made once for each user. Good for trying the app, not for giving it away."""
    keystore = tools.cache_directory() / "debug.keystore"
    if not keystore.is_file():
        keystore.parent.mkdir(parents=True, exist_ok=True)
        new = keystore.with_suffix(f".{os.getpid()}")
        keytool = [
            tools.command("keytool"),
            "-genkeypair",
            "-keystore",
            str(new),
            "-storepass",
            DEBUG_PASSWORD,
        ]
        keytool += ["-alias", "debug", "-keyalg", "RSA", "-keysize", "2048", "-validity", "10000"]
        run([*keytool, "-dname", "CN=PocketGLM debug key"], "The debug key was not made")
        os.replace(new, keystore)
    return SigningKey(keystore, "debug", DEBUG_PASSWORD)


def sign(unsigned: Path, signed: Path, key: SigningKey) -> None:
    """Schemes 2 and 3: the first Android we run on knows 2. The password is not on the command line."""
    signed.parent.mkdir(parents=True, exist_ok=True)
    apksigner = [
        tools.command("apksigner"),
        "sign",
        "--ks",
        str(key.keystore),
        "--ks-pass",
        f"env:{PASSWORD}",
    ]
    apksigner += ["--ks-key-alias", key.alias] if key.alias else []
    apksigner += ["--min-sdk-version", "26", "--v1-signing-enabled", "false", "--v2-signing-enabled", "true"]
    apksigner += ["--v3-signing-enabled", "true", "--v4-signing-enabled", "false"]
    run([*apksigner, "--out", signed, unsigned], "The APK was not signed", **{PASSWORD: key.password})
