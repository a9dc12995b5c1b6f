"""The secret of a deployment: it signs decision ids and keys digests, and all processes on all hosts have the same."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from monkey_coder.errors import SettingsError, StoreFormatError, StoreUnavailableError
from monkey_coder.private_file import written_beside
from monkey_coder.settings import Settings
from monkey_coder.storage.port import Documents

SECRET_BYTES: Final = 32
FILE_NAME: Final = "secret"
_KIND: Final = "deployment"

_log = logging.getLogger(__name__)


def deployment_secret(settings: Settings, store: Documents) -> bytes:
    """Find the secret; the first process makes it.

    An operator's own comes first. Otherwise hosts that share a Redis agree there on the one of whoever was first, and
    each keeps a copy, for starts at which Redis is away; processes on one host share the copy.

    Args:
        settings: Name the state directory and, if there is one, the secret.
        store: Of the deployment; it may be away.

    Raises:
        SettingsError: The state directory cannot be used, or the secret in it is damaged.
    """
    if settings.secret is not None:
        return bytes.fromhex(settings.secret)
    own = local_secret(settings.state_dir)
    if settings.redis_url is None:
        return own
    try:
        store.put_document(_KIND, FILE_NAME, own, 0)
        agreed = store.document(_KIND, FILE_NAME)
    except (StoreUnavailableError, StoreFormatError) as error:
        _log.warning("the deployment's secret cannot be looked up, the copy of this host must do: %s", error)
        return own
    if agreed is None or len(agreed.value) != SECRET_BYTES or agreed.value == own:
        return own
    path = settings.state_dir / FILE_NAME
    written_beside(path, agreed.value).replace(path)
    return agreed.value


def local_secret(state_dir: Path) -> bytes:
    """Read this host's copy; the first process makes it, for this user alone.

    Raises:
        SettingsError: The directory cannot be used, or the secret in it is damaged.
    """
    path = state_dir / FILE_NAME
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            fresh = written_beside(path, os.urandom(SECRET_BYTES))
            with suppress(FileExistsError):  # another process was first: its secret is everybody's
                os.link(fresh, path)
            fresh.unlink()
        secret = path.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"the state directory {state_dir} cannot be used ({error.strerror}: {error.filename}); "
            "set MONKEY_CODER_STATE_DIR to a directory that this user may write to"
        ) from error
    if len(secret) != SECRET_BYTES:
        raise SettingsError(
            f"{path} has {len(secret)} bytes instead of {SECRET_BYTES}; restore it, or delete it to get a new one "
            "(decision ids made before will no longer be accepted)"
        )
    return secret
