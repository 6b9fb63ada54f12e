"""A callback that tells a server how training goes."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import numpy as np

from unilayers.callbacks.base import Callback


class RemoteMonitor(Callback):
    """Sends the values of each epoch to a server, by HTTP POST. Training goes on if it cannot be reached.

    Args:
        root: Address of the server.
        path: Stands behind ``root``.
        field: Name of the form's field that holds the values as JSON.
        headers: Further HTTP headers.
        send_as_json: Whether the body is the JSON itself (``application/json``), not a form.
    """

    TIMEOUT = 10.0  # seconds

    def __init__(
        self,
        root: str = "http://localhost:9000",
        path: str = "/publish/epoch/end/",
        field: str = "data",
        headers: Mapping[str, str] | None = None,
        send_as_json: bool = False,
    ) -> None:
        self.root, self.path, self.field = root, path, field
        self.headers, self.send_as_json = dict(headers or {}), send_as_json

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        text = json.dumps(
            {"epoch": epoch, **{name: np.asarray(value).tolist() for name, value in (logs or {}).items()}}
        )
        kind = "application/json" if self.send_as_json else "application/x-www-form-urlencoded"
        body = text if self.send_as_json else urlencode({self.field: text})
        url = self.root + self.path
        try:
            request = Request(url, body.encode(), {"Content-Type": kind, **self.headers}, method="POST")
            urlopen(request, timeout=self.TIMEOUT).close()
        except (URLError, OSError) as error:
            warnings.warn(f"RemoteMonitor: {url} cannot be reached: {error}", stacklevel=2)
