"""A bucket of a test's own: moto's S3 over HTTP on loopback, which `pyarrow.fs` is led to as to any other endpoint."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow.fs as pafs
from moto.server import ThreadedMotoServer

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
# what would lead elsewhere
OTHERS = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "AWS_WEB_IDENTITY_TOKEN_FILE")


@contextmanager
def bucket(name: str) -> Iterator[dict[str, str]]:
    """Start a server with an empty bucket; yields the variables by which it is found."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        options = {"access_key": "test", "secret_key": "test", "region": "us-east-1", "scheme": "http"}
        fs = pafs.S3FileSystem(endpoint_override=f"{host}:{port}", allow_bucket_creation=True, **options)
        fs.create_dir(name)
        yield KEYS | {"AWS_ENDPOINT_URL": f"http://{host}:{port}"}
    finally:
        server.stop()
