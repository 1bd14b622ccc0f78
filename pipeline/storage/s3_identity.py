"""Who a request to S3 comes from: somebody with credentials, who may have to pay for it, or nobody.

Owns the two handlers that see every request of a client before it is sent. Reads no credentials.
"""

# pyright: reportMissingTypeStubs=false

from __future__ import annotations

from typing import Any

from pipeline.settings import StoreSettings


def is_unsigned(settings: StoreSettings, bucket: str, *, signed_bucket: str) -> bool:
    """Whether requests to this bucket carry no signature."""
    return settings.anonymous and bucket != signed_bucket


def set_identity(client: Any, settings: StoreSettings, *, signed_bucket: str) -> None:
    """Make a boto3 client ask as `settings` say, by the events that botocore has for it."""
    # Imported here because it takes a third of a second that runs on local disk need not spend.
    from botocore import UNSIGNED

    def note_bucket(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        context["maskmill_bucket"] = params.get("Bucket", "")

    def choose_signer(context: dict[str, Any], **_: Any) -> Any:
        unsigned = is_unsigned(settings, context["maskmill_bucket"], signed_bucket=signed_bucket)
        return UNSIGNED if unsigned else None  # None leaves the choice to the client

    def say_who_pays(params: dict[str, Any], **_: Any) -> None:
        params["headers"]["x-amz-request-payer"] = "requester"

    if settings.anonymous:
        client.meta.events.register("provide-client-params.s3", note_bucket)
        client.meta.events.register("choose-signer.s3", choose_signer)
    if settings.requester_pays:
        client.meta.events.register("before-call.s3", say_who_pays)
