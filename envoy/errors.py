"""The edge's own answers to failed calls, in the shape of the services' errors: a google.rpc.Status."""

import math
from base64 import b64encode
from dataclasses import dataclass
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from shop.system.v1.error_reason_pb2 import DESCRIPTOR

from envoy.limits import RATE_LIMIT_WINDOW_S

DOMAIN: Final = DESCRIPTOR.package


def _only(status: int) -> range:
    return range(status, status + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeError:
    """One error of the edge.

    Attributes:
        statuses: the statuses of Envoy's own answers that are this error.
        condition: a CEL expression over Envoy's attributes that is true for this error only, if the status does not
            tell. Empty for none.
        http: the HTTP status over REST.
        code: the gRPC status in the JSON over REST, as in shop/system/v1/error_reason.proto.
        rpc: the gRPC status over gRPC; differs from `code` only if gRPC itself prescribes another one.
        reason: a value of shop.system.v1.ErrorReason, without its prefix.
        message: what happened and what to do, for the caller.
        quotes_envoy: whether REST callers get Envoy's own message instead. The transcoder's messages about a body help
            them; the router's reveal hosts and sockets.
        retry_after_s: seconds until the same call may succeed; None if it never will.
        challenge: the header `www-authenticate` over REST (RFC 6750, 3); None unless the token is the problem.
    """

    statuses: tuple[range, ...]
    condition: str = ""
    http: int
    code: "Code.ValueType"
    rpc: "Code.ValueType"
    reason: str
    message: str
    quotes_envoy: bool = False
    retry_after_s: int | None = None
    challenge: str | None = None

    @property
    def domain(self) -> str:
        """The package that declares the reason."""
        return DOMAIN

    @property
    def status_details_bin(self) -> str:
        """The header `grpc-status-details-bin`, from which gRPC callers read the reason."""
        status = Status(code=self.rpc, message=self.message)
        status.details.add().Pack(ErrorInfo(reason=self.reason, domain=DOMAIN))
        if self.retry_after_s is not None:
            status.details.add().Pack(RetryInfo(retry_delay=Duration(seconds=self.retry_after_s)))
        return b64encode(status.SerializeToString(deterministic=True)).decode().rstrip("=")


NOT_LET_IN: Final = "There is no token, or it is not valid. Log in and send the access token as a bearer token."
"""The services use the same sentence."""

# Why a gRPC call is refused, by a CEL expression over its headers.
_MALFORMED_GRPC: Final = {
    "request.headers[':authority'].contains(',')": "There must be one Host.",
    "'grpc-timeout' in request.headers && !request.headers['grpc-timeout'].matches('^[0-9]{1,8}[HMSmun]$')": (
        "grpc-timeout must be up to 8 digits and a unit, such as 500m."
    ),
    "'grpc-encoding' in request.headers && request.headers['grpc-encoding'] != 'identity'": (
        "grpc-encoding must be identity: send messages uncompressed."
    ),
}

EDGE_ERRORS: Final = (
    # The cluster has reached its limit of calls under way (max_requests in edge.yaml.j2).
    EdgeError(
        statuses=(_only(503),),
        condition="response.code_details.contains('overflow')",
        http=429,
        code=Code.RESOURCE_EXHAUSTED,
        rpc=Code.RESOURCE_EXHAUSTED,
        reason="OVERLOADED",
        message="Too many calls wait already, so this one was not begun. Try again shortly.",
        retry_after_s=1,
    ),
    EdgeError(
        statuses=(range(404, 406),),
        http=404,
        code=Code.NOT_FOUND,
        rpc=Code.UNIMPLEMENTED,  # prescribed by gRPC for an unknown method
        reason="ROUTE_NOT_FOUND",
        message="There is no such path, or not with this verb: the contract lists those there are.",
    ),
    EdgeError(
        statuses=(_only(408), _only(504)),
        http=504,
        code=Code.DEADLINE_EXCEEDED,
        rpc=Code.DEADLINE_EXCEEDED,
        reason="DEADLINE_EXCEEDED",
        message="The call took too long. A write may have been done: repeat it with the same request id.",
    ),
    # The keys could not be fetched. Not 401: a client whose token is called invalid would log its user out.
    EdgeError(
        statuses=(_only(401), _only(403)),
        condition="response.code_details.contains('fetch')",
        http=503,
        code=Code.UNAVAILABLE,
        rpc=Code.UNAVAILABLE,
        reason="SERVICE_UNAVAILABLE",
        message="Tokens cannot be checked right now: try again in a moment.",
        retry_after_s=1,
    ),
    EdgeError(
        statuses=(_only(401),),
        condition="response.code_details.contains('Jwt_is_expired')",
        http=401,
        code=Code.UNAUTHENTICATED,
        rpc=Code.UNAUTHENTICATED,
        reason="TOKEN_EXPIRED",
        message="The token has expired. Refresh the session, or log in.",
        challenge='Bearer error="invalid_token"',
    ),
    EdgeError(
        statuses=(_only(401),),
        condition="response.code_details.contains('Jwt_is_missing')",
        http=401,
        code=Code.UNAUTHENTICATED,
        rpc=Code.UNAUTHENTICATED,
        reason="TOKEN_INVALID",
        message=NOT_LET_IN,
        challenge="Bearer",
    ),
    # Envoy answers 403 to a token for another audience; it is as invalid as any other.
    EdgeError(
        statuses=(_only(401), _only(403)),
        condition="response.code_details.contains('jwt')",
        http=401,
        code=Code.UNAUTHENTICATED,
        rpc=Code.UNAUTHENTICATED,
        reason="TOKEN_INVALID",
        message=NOT_LET_IN,
        challenge='Bearer error="invalid_token"',
    ),
    EdgeError(
        statuses=(_only(413),),
        condition="xds.route_metadata.filter_metadata['shop.edge']['body'] == 'none'",
        http=400,
        code=Code.INVALID_ARGUMENT,
        rpc=Code.INVALID_ARGUMENT,
        reason="MALFORMED_REQUEST",
        message="This call takes no body: what it needs stands in the path and the query.",
    ),
    EdgeError(
        statuses=(_only(413),),
        http=413,
        code=Code.RESOURCE_EXHAUSTED,
        rpc=Code.RESOURCE_EXHAUSTED,
        reason="PAYLOAD_TOO_LARGE",
        message="The body is larger than a valid request of this method can be: send less in one call.",
    ),
    EdgeError(
        statuses=(_only(415),),
        condition="request.url_path.startsWith('/shop.') || request.url_path.startsWith('/grpc.')",
        http=415,
        code=Code.INVALID_ARGUMENT,
        rpc=Code.INVALID_ARGUMENT,
        reason="UNSUPPORTED_MEDIA_TYPE",
        message="A gRPC call must be protobuf, with the content-type application/grpc or one of gRPC-Web.",
    ),
    EdgeError(
        statuses=(_only(415),),
        http=415,
        code=Code.INVALID_ARGUMENT,
        rpc=Code.INVALID_ARGUMENT,
        reason="UNSUPPORTED_MEDIA_TYPE",
        message="A body must be JSON, with the header content-type: application/json and without a content-encoding.",
    ),
    *(
        EdgeError(
            statuses=(_only(400),),
            condition=f"response.code_details == 'direct_response' && {is_malformed}",
            http=400,
            code=Code.INVALID_ARGUMENT,
            rpc=Code.INVALID_ARGUMENT,
            reason="MALFORMED_REQUEST",
            message=message,
        )
        for is_malformed, message in _MALFORMED_GRPC.items()
    ),
    EdgeError(
        statuses=(_only(400),),
        condition="response.code_details.matches('lua|transcode|direct|base_64')",
        http=400,
        code=Code.INVALID_ARGUMENT,
        rpc=Code.INVALID_ARGUMENT,
        reason="MALFORMED_REQUEST",
        message="A header or the body cannot be read: see the contract for what they may hold.",
        quotes_envoy=True,
    ),
    EdgeError(
        statuses=(_only(426),),
        http=400,
        code=Code.INVALID_ARGUMENT,
        rpc=Code.INVALID_ARGUMENT,
        reason="MALFORMED_REQUEST",
        message="The request is HTTP/1.0 or older: send HTTP/1.1, with a Host, or HTTP/2.",
    ),
    EdgeError(
        statuses=(_only(431),),
        http=400,
        code=Code.INVALID_ARGUMENT,
        rpc=Code.INVALID_ARGUMENT,
        reason="MALFORMED_REQUEST",
        message="Path and headers are more than 100 headers or 32 KiB: send fewer or shorter ones.",
    ),
    EdgeError(
        statuses=(range(400, 500), _only(501)),
        http=400,
        code=Code.INVALID_ARGUMENT,
        rpc=Code.INVALID_ARGUMENT,
        reason="MALFORMED_REQUEST",
        message=(
            "The verb, the path or a header cannot be read: there must be one Host and one length, no escaped slashes, "
            "and no underscores in header names."
        ),
    ),
    EdgeError(
        statuses=(range(502, 504),),
        http=503,
        code=Code.UNAVAILABLE,
        rpc=Code.UNAVAILABLE,
        reason="SERVICE_UNAVAILABLE",
        message="No replica of the service can take the call: try again in a moment.",
        retry_after_s=1,  # the interval of health checks: the edge then knows of a replica that is back
    ),
    EdgeError(
        statuses=(range(500, 600),),
        http=500,
        code=Code.INTERNAL,
        rpc=Code.INTERNAL,
        reason="INTERNAL",
        message="Something went wrong at the edge; its log has the cause under the request id.",
    ),
)
"""The first error whose condition matches is used."""


def rate_limited(limit: int, *, condition: str = "") -> EdgeError:
    """Return the error for callers that exceed a limit.

    Args:
        limit: calls per window. The bucket refills evenly, so the next call is possible after 1/limit of the window.
        condition: as in `EdgeError`, true if this limit was exceeded.
    """
    return EdgeError(
        statuses=(_only(429),),
        condition=condition,
        http=429,
        code=Code.RESOURCE_EXHAUSTED,
        rpc=Code.RESOURCE_EXHAUSTED,
        reason="RATE_LIMITED",
        message="Too many calls came from this address: wait as long as Retry-After says.",
        retry_after_s=math.ceil(RATE_LIMIT_WINDOW_S / limit),
    )
