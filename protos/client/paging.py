"""The pages of a list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

from google.protobuf.message import Message
from grpc import aio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator

    import grpc


class _ListRequest(Protocol):
    page_token: str


class _Page(Protocol):
    @property
    def next_page_token(self) -> str: ...


_Request = TypeVar("_Request", bound=_ListRequest)
_Response = TypeVar("_Response", bound=_Page)


@overload
def pages(rpc: aio.UnaryUnaryMultiCallable[_Request, _Response], request: _Request) -> AsyncIterator[_Response]: ...
@overload
def pages(rpc: grpc.UnaryUnaryMultiCallable[_Request, _Response], request: _Request) -> Iterator[_Response]: ...
def pages(rpc: Any, request: Any) -> Any:
    """Yield every page of a list; each page is one call.

    `for page in pages(stub.ListOrders, ListOrdersRequest()): …`

    Args:
        rpc: of a stub; with a stub of grpc.aio the pages come by `async for`.
        request: the filter and the size of the pages; with a `page_token` the pages begin there. It is not changed.

    Raises:
        ShopError: a call failed. To continue, list again with the token of the last page.
    """
    own = _copy(request)
    return _aio_pages(rpc, own) if isinstance(rpc, aio.UnaryUnaryMultiCallable) else _sync_pages(rpc, own)


def _copy(request: Any) -> Any:
    if not isinstance(request, Message):
        raise TypeError(f"give the request message of a list, not {type(request).__name__}")
    if "page_token" not in request.DESCRIPTOR.fields_by_name:
        raise TypeError(f"{request.DESCRIPTOR.full_name} has no page_token: this rpc is no list")
    copy = type(request)()
    copy.CopyFrom(request)
    return copy


async def _aio_pages(rpc: Any, request: Any) -> AsyncGenerator[Any, None]:
    while True:
        page = await rpc(request)
        yield page
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def _sync_pages(rpc: Any, request: Any) -> Generator[Any, None, None]:
    while True:
        page = rpc(request)
        yield page
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token
