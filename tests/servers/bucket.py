"""Real S3 and Google servers on this machine: moto, one request at a time."""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import boto3
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server
from werkzeug.test import run_wsgi_app

BUCKET = "runs"
App = Callable[[dict[str, Any], Any], Any]

ONE_REQUEST = threading.Lock()
MOTO = DomainDispatcherApplication(create_backend_app)


def amazon(environ: dict[str, Any], start_response: Any) -> Any:
    """Answer as S3: moto looks for the file and writes it in two steps, S3 in one."""
    with ONE_REQUEST:
        return MOTO(environ, start_response)


def google(environ: dict[str, Any], start_response: Any) -> Any:
    """Answer as Google's XML interface, which is S3's but for the headers of its own."""
    environ["HTTP_AUTHORIZATION"] = (
        "AWS4-HMAC-SHA256 Credential=AKIDTEST/20260101/us-east-1/s3/aws4_request, "
        "SignedHeaders=host, Signature=0"
    )
    if environ.pop("HTTP_X_GOOG_IF_GENERATION_MATCH", None) == "0":
        environ["HTTP_IF_NONE_MATCH"] = "*"
    if source := environ.pop("HTTP_X_GOOG_COPY_SOURCE", None):
        environ["HTTP_X_AMZ_COPY_SOURCE"] = source
    if environ["REQUEST_METHOD"] == "DELETE":
        _, status, _ = run_wsgi_app(amazon, environ | {"REQUEST_METHOD": "HEAD"})
        if status.startswith("404"):
            start_response(status, [("Content-Length", "0")])
            return []
    return amazon(environ, start_response)


@contextlib.contextmanager
def serving(app: App) -> Iterator[str]:
    """Serve `app` on this machine; the URL."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()


CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "AKIDTEST",
    "AWS_SECRET_ACCESS_KEY": "SECRET",
    "AWS_REGION": "us-east-1",
    "NO_PROXY": "127.0.0.1",
}
"""What a client's environment must hold besides AWS_ENDPOINT_URL."""


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """Serve an S3 that has the bucket BUCKET; the URL."""
    with serving(amazon) as url:
        boto3.client(
            "s3",
            endpoint_url=url,
            region_name=CREDENTIALS["AWS_REGION"],
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        ).create_bucket(Bucket=BUCKET)
        yield url
