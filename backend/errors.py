"""Every error that the backend raises on purpose.

FanfareError
├── RequestRefused ............ the client's doing: 4xx
│   ├── InvalidRequest 422     NotFound 404      Conflict 409      IdempotencyConflict 422
│   ├── IdempotencyInFlight 409  Unauthorized 401  Forbidden 403
│   ├── InvalidToken 401 .......... a kind of Unauthorized; TokenExpired one of it
│   ├── PayloadTooLarge 413    UnsupportedMediaType 415   UploadTimedOut 408
│   ├── TooManyRequests 429 ....... RateLimited  QuotaReached  QueueFull
│   └── SignatureInvalid 403   SignatureExpired 403 .... kinds of Forbidden
├── ServiceUnavailable 503 .... DatabaseUnavailable  BrokerUnavailable  SignInUnavailable
├── LLMError .................. LLMUnavailable  LLMTimeout  LLMRateLimited  LLMUnauthorized  LLMQuotaExceeded
│                               LLMRefused  LLMBadAnswer
├── StorageError .............. StorageUnavailable  ObjectNotFound  ObjectTooLarge  InvalidKey
├── NotifyError ............... DeliveryFailed  TargetGone  TargetRefused
├── StepFailed ................ a step of a pipeline can't be done
├── ImageUnreadable ........... bytes that are not an image we take
└── ReferenceUnavailable, ReferenceRefused ... what images shall start from; ReferenceAway: for now

The docstring is the message, unless a better one is given. `code` is stable and listed in docs/errors.md.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class FieldError:
    """What is wrong with one part of a request."""

    pointer: str  # JSON pointer as a URI fragment: #/count
    detail: str


class FanfareError(Exception):
    """Something went wrong."""

    code = "internal"
    title = "Internal error"
    status = 500
    retryable = False
    retry_after_s: int | None = None

    def __init__(self, detail: str | None = None, *, errors: tuple[FieldError, ...] = ()) -> None:
        self.detail = detail or (type(self).__doc__ or "").strip().splitlines()[0]
        self.errors = errors
        super().__init__(self.detail)


# -- the client's doing -------------------------------------------------------------------------------


class RequestRefused(FanfareError):
    """The request can't be taken as it is."""

    code = "request_refused"
    title = "Request refused"
    status = 400


class InvalidRequest(RequestRefused):
    """A part of the request is not valid."""

    code = "invalid_request"
    title = "Invalid request"
    status = 422


class NotFound(RequestRefused):
    """There is no such thing, or it isn't yours."""

    code = "not_found"
    title = "Not found"
    status = 404


class Conflict(RequestRefused):
    """The thing is not in a state in which this can be done."""

    code = "conflict"
    title = "Conflict"
    status = 409


class IdempotencyConflict(RequestRefused):
    """This idempotency key was used with another request."""

    code = "idempotency_key_reused"
    title = "Idempotency key reused"
    status = 422


class IdempotencyInFlight(RequestRefused):
    """A request with this idempotency key is being handled right now."""

    code = "idempotency_key_in_flight"
    title = "Idempotency key in flight"
    status = 409
    retry_after_s = 1


class Unauthorized(RequestRefused):
    """An API key is needed, and none, or none that is known, was given."""

    code = "unauthorized"
    title = "Unauthorized"
    status = 401
    challenge = "Bearer"  # what `WWW-Authenticate` says


class InvalidToken(Unauthorized):
    """This access token is not valid here."""

    code = "invalid_token"
    challenge = 'Bearer error="invalid_token"'


class TokenExpired(InvalidToken):
    """This access token has expired: refresh the session, and send the new one."""

    code = "token_expired"


class Forbidden(RequestRefused):
    """This is not allowed."""

    code = "forbidden"
    title = "Forbidden"
    status = 403


class SignatureInvalid(Forbidden):
    """The signature of this URL is not valid."""

    code = "signature_invalid"


class SignatureExpired(Forbidden):
    """This URL has expired. Ask for a new one."""

    code = "signature_expired"


class UploadTimedOut(RequestRefused):
    """The body did not arrive in time."""

    code = "upload_timed_out"
    title = "Request timeout"
    status = 408
    retryable = True


class PayloadTooLarge(RequestRefused):
    """The body is larger than what is taken."""

    code = "payload_too_large"
    title = "Payload too large"
    status = 413


class UnsupportedMediaType(RequestRefused):
    """The body has a content type that is not taken here."""

    code = "unsupported_media_type"
    title = "Unsupported media type"
    status = 415


class TooManyRequests(RequestRefused):
    """Too much is asked for at once. Try again later."""

    code = "too_many_requests"
    title = "Too many requests"
    status = 429
    retryable = True
    retry_after_s = 10

    def __init__(self, detail: str | None = None, *, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s or type(self).retry_after_s


class RateLimited(TooManyRequests):
    """You have sent too many requests in the last minute."""

    code = "rate_limited"


class QuotaReached(TooManyRequests):
    """You have too many images open. Try again when some are done."""

    code = "quota"


class QueueFull(TooManyRequests):
    """The queue is full. Try again when some of what is in it is done."""

    code = "queue_full"


# -- a service that is away ---------------------------------------------------------------------------


class ServiceUnavailable(FanfareError):
    """A service that is needed for this is away. Try again shortly."""

    code = "service_unavailable"
    title = "Service unavailable"
    status = 503
    retryable = True
    retry_after_s = 5


class DatabaseUnavailable(ServiceUnavailable):
    """The database can't be reached. Try again shortly."""

    code = "database_unavailable"


class SignInUnavailable(ServiceUnavailable):
    """The keys that access tokens are signed with can't be fetched. Try again shortly."""

    code = "sign_in_unavailable"


class BrokerUnavailable(ServiceUnavailable):
    """The broker can't be reached. Try again shortly."""

    code = "broker_unavailable"


# -- language models ----------------------------------------------------------------------------------


class LLMError(FanfareError):
    """The language model could not do what was asked."""

    code = "llm_failed"
    title = "Language model failed"


class LLMUnavailable(LLMError):
    """The language model can't be reached."""

    code = "llm_unavailable"
    retryable = True


class LLMTimeout(LLMError):
    """The language model did not answer in time."""

    code = "llm_timeout"
    retryable = True


class LLMRateLimited(LLMError):
    """The language model asks us to slow down."""

    code = "llm_rate_limited"
    retryable = True


class LLMUnauthorized(LLMError):
    """The language model refused the key that the server is configured with."""

    code = "llm_unauthorized"


class LLMQuotaExceeded(LLMError):
    """The account with the language model has no quota left."""

    code = "llm_quota_exceeded"


class LLMRefused(LLMError):
    """The language model declined this message."""

    code = "llm_refused"


class LLMBadAnswer(LLMError):
    """The language model's answer did not hold what was asked for."""

    code = "llm_bad_answer"
    retryable = True


# -- storage ------------------------------------------------------------------------------------------


class StorageError(FanfareError):
    """The object store failed."""

    code = "storage_failed"
    title = "Storage failed"


class StorageUnavailable(StorageError):
    """The object store can't be reached or doesn't work. Try again shortly."""

    code = "storage_unavailable"
    status = 503
    retryable = True
    retry_after_s = 5


class ObjectNotFound(StorageError):
    """There is no such object."""

    code = "object_not_found"
    status = 404


class ObjectTooLarge(StorageError):
    """The object is larger than what is taken."""

    code = "object_too_large"
    status = 413


class InvalidKey(StorageError):
    """This is not the name of an object."""

    code = "invalid_key"
    status = 404


# -- notifications ------------------------------------------------------------------------------------


class NotifyError(FanfareError):
    """A notification was not delivered."""

    code = "notify_failed"

    def __init__(
        self,
        detail: str | None = None,
        *,
        status_code: int | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.status_code = status_code  # what the receiver answered, if it did
        self.retry_after_s = retry_after_s  # as it has asked


class DeliveryFailed(NotifyError):
    """The receiver could not be reached or did not accept the notification."""

    code = "delivery_failed"
    retryable = True


class TargetGone(NotifyError):
    """The receiver answered 410 Gone: it wants no more."""

    code = "target_gone"


class TargetRefused(NotifyError):
    """This address may not be called."""

    code = "target_refused"


# -- steps --------------------------------------------------------------------------------------------


class StepFailed(FanfareError):
    """A step of the pipeline can't be done."""

    code = "step_failed"


# -- images -------------------------------------------------------------------------------------------


class ImageUnreadable(FanfareError):
    """These bytes are not an image that is taken."""

    code = "image_unreadable"


class ReferenceUnavailable(FanfareError):
    """The image to start from can't be fetched."""

    code = "reference_unavailable"
    retryable = True


class ReferenceAway(ReferenceUnavailable):
    """The image to start from can't be fetched right now."""

    def __init__(
        self, detail: str | None = None, *, retry_after_s: int | None = None, asked_too_often: bool = False
    ) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s  # as its server has asked
        self.asked_too_often = asked_too_often  # for whatever it was


class ReferenceRefused(FanfareError):
    """The image to start from can't be used."""

    code = "reference_refused"
