"""Which speech server is asked: the scheme of `voice.remote.url` tells its protocol."""

from __future__ import annotations

from urllib.parse import urlsplit

from edge_runtime.core.errors import ConfigError
from edge_runtime.serve.speech.inference import InferenceSpeech
from edge_runtime.serve.speech.server import SpeechServer
from edge_runtime.serve.speech.wyoming import WyomingSpeech

WYOMING_PORT = 10300  # of wyoming-faster-whisper, the usual one


def open_speech_server(url: str, model: str) -> SpeechServer:
    """url: tcp://HOST[:PORT] is Wyoming, http(s)://HOST[:PORT][/PATH] the Open Inference Protocol.

    Raises ConfigError when it is neither.
    """
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError as err:
        raise ConfigError(f"voice.remote.url = '{url}': {err}") from err
    if not host or parts.scheme not in ("tcp", "http", "https"):
        raise ConfigError(f"voice.remote.url = '{url}' must be tcp://HOST:PORT or http://HOST:PORT")
    if parts.scheme == "tcp":
        return WyomingSpeech(host, port or WYOMING_PORT, model)
    return InferenceSpeech(url, model)
