"""Turns what boto3 raises into errors by who must act: try again, change the settings, or look at the object.

Owns the list of transient codes (measured against real and fake servers). Makes no request.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportAttributeAccessIssue=false
# (boto3 makes its clients at run time and has no types)

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from botocore import exceptions as boto

from pipeline.errors import ChangedError, ConfigError, DeniedError, NotFoundError, OutOfReachError, StorageError
from pipeline.storage.retry import Transient
from pipeline.storage.uris import split_s3

# 409 means a concurrent creation of the same key, and who won is not decided yet.
_TRANSIENT_STATUSES = (408, 409, 429)
_TRANSIENT_CODES = ("BadDigest", "IncompleteBody", "RequestTimeout", "Throttling", "ThrottlingException")
_IMPOSSIBLE_NAME = ("KeyTooLongError", "InvalidBucketName", "InvalidURI")
_EXPIRED = ("ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired")
_REFUSED = ("InvalidToken", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidObjectState", "RequestTimeTooSkewed")
_UNSAID = "400"
"""All that the answer to a HEAD says of an expired token or a key that may not be used: it has no body."""
_NO_IDENTITY = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.TokenRetrievalError,
    boto.SSOError,
    boto.ProfileNotFound,
)
_UNREACHABLE = (boto.EndpointConnectionError, boto.ConnectTimeoutError, boto.ProxyConnectionError, boto.SSLError)
_BROKEN_LINE = (boto.HTTPClientError, boto.ConnectionError, boto.IncompleteReadError, OSError)


@contextmanager
def translated(uri: str, *, unsigned: bool = False) -> Generator[None]:
    """raises  Transient, or one of pipeline.errors, for everything that boto3 raises inside.

    unsigned  whether the requests inside carry no credentials, which then are no cure for a refusal
    """
    try:
        yield
    except boto.ClientError as error:
        raise of_answer(uri, error, unsigned=unsigned) from error
    except _NO_IDENTITY as error:
        raise DeniedError(
            f"{uri}: no usable credentials ({error}); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, "
            "or give this machine a role; a public bucket is read without any by store.anonymous=true"
        ) from error
    except _UNREACHABLE as error:
        raise Transient(f"{error}; check store.endpoint_url and the network", unreachable=True) from error
    except _BROKEN_LINE as error:
        raise Transient(f"the connection broke ({error})") from error
    except boto.FlexibleChecksumError as error:
        raise StorageError(f"{uri}: the bytes that came do not match their checksum ({error})") from error
    except (boto.BotoCoreError, ValueError) as error:
        # The settings were good enough to make a client, so only this one name cannot be asked for.
        raise NotFoundError(f"{uri} cannot exist ({error}); check the name") from error


@contextmanager
def making_client() -> Generator[None]:
    """raises  ConfigError if boto3 cannot make a client from the settings; other errors are left to `translated`."""
    try:
        yield
    except _NO_IDENTITY:
        raise
    except (boto.BotoCoreError, ValueError) as error:
        raise ConfigError(f"no S3 client can be made ({error}); check store.endpoint_url and store.region") from error


def status_of(error: boto.ClientError) -> int:
    """The HTTP status of an answer, 0 if it had none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def of_answer(uri: str, error: boto.ClientError, *, unsigned: bool = False) -> Exception:
    """The exception that an error answer amounts to."""
    status, code = status_of(error), str(error.response.get("Error", {}).get("Code", ""))
    said = f"{status} {code}" if code != str(status) else code
    bucket, _ = split_s3(uri)
    if code == "NoSuchBucket":
        return OutOfReachError(f"{uri}: there is no bucket {bucket!r}; create it, or check the name and store.region")
    if status == 404:
        return NotFoundError(f"{uri} does not exist (or bucket {bucket!r} does not); check the name")
    if status in (401, 403) or code in (*_EXPIRED, *_REFUSED, _UNSAID) or code.startswith("KMS"):
        return DeniedError(f"{uri}: refused ({said}); {_cure(code, bucket, unsigned=unsigned)}")
    if code in _IMPOSSIBLE_NAME:
        return NotFoundError(f"{uri[:200]} cannot exist ({said}); check the name")
    if status in (412, 416):
        return ChangedError(f"{uri} was changed since it was planned ({said})")
    if status == 501 or code == "NotImplemented":
        return ConfigError(f"{uri}: this store does not implement what is asked ({said}); choose another one")
    if status in (301, 307) or code in ("AuthorizationHeaderMalformed", "IllegalLocationConstraintException"):
        # Not a ConfigError: a list may name buckets of many regions, and one in another region must not stop the rest.
        return DeniedError(f"{uri}: bucket {bucket!r} lives in another region ({error}); set store.region")
    if status >= 500 or status in _TRANSIENT_STATUSES or code in _TRANSIENT_CODES:
        return Transient(f"the store answered {said}")
    return StorageError(f"{uri}: the store answered {said} ({error})")


def _cure(code: str, bucket: str, *, unsigned: bool) -> str:
    """What to do about a refusal."""
    if unsigned:
        return f"asked unsigned, as store.anonymous=true says; bucket {bucket!r} is not public, or this object is not"
    if code in _EXPIRED:
        return "the credentials have expired; renew them and repeat the command"
    if code == _UNSAID:
        return "the answer does not say why; most often the credentials have expired: renew them and repeat the command"
    if code == "InvalidObjectState":
        return "it is archived; restore it from the archive and repeat the command"
    if code.startswith("KMS"):
        return "it is encrypted with a key that is out of reach; make the key usable with these credentials"
    if code == "RequestTimeTooSkewed":
        return "set this machine's clock"
    return (
        f"check the credentials and their rights on bucket {bucket!r} "
        "(without the right to list, a missing object is refused as well; a bucket whose readers pay needs "
        "store.requester_pays=true)"
    )
