"""Pages of traces: a list of the last ones, and each trace as a waterfall of its spans."""

from __future__ import annotations

import threading
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from typing import TYPE_CHECKING, Final, Self

from typing_extensions import override

from chassis.service import services
from devstack.ports import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

    from devstack.traces import ReceivedSpan, TraceReceiver

# The edge, and the services in the order of starting; after the last colour they begin again.
_PALETTE: Final = ("#7a5af8", "#dc6803", "#0e9384", "#1570ef", "#c11574", "#4ca30d")
_COLOURS: Final = dict(zip(("edge", *(service.name for service in services())), cycle(_PALETTE), strict=False))

_STYLE: Final = """
body { font: 14px/1.5 system-ui, sans-serif; margin: 2rem; color: #101828; background: #fff }
a { color: inherit } table { border-collapse: collapse; width: 100% }
th { text-align: left; color: #475467; font-weight: 500 }
td, th { padding: .2rem .6rem; border-bottom: 1px solid #eaecf0 }
td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap } tr:hover { background: #f9fafb }
.name { white-space: nowrap; max-width: 34rem; overflow: hidden; text-overflow: ellipsis } .time { width: 45% }
.bar { height: .9rem; border-radius: 2px; min-width: 2px } .error { color: #b42318; font-weight: 600 }
.service { display: inline-block; width: .7rem; height: .7rem; border-radius: 2px; margin-right: .4rem }
details { color: #475467 } dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; margin: .3rem 0 }
dd { margin: 0; font-family: ui-monospace, monospace; white-space: pre-wrap }
@media (prefers-color-scheme: dark) { body { color: #eaecf0; background: #101828 } tr:hover { background: #1d2939 } }
"""


class WaterfallPage:
    """Serves the traces of a receiver on loopback: `with WaterfallPage(receiver) as page: ...`.

    Attributes:
        url: of the list.
    """

    def __init__(self, receiver: TraceReceiver) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                _, _, trace_id = self.path.partition("/trace/")
                body = (_trace_page(receiver.trace(trace_id)) if trace_id else _list_page(receiver.traces())).encode()
                self.send_response(HTTPStatus.OK)
                self.send_header("content-type", "text/html; charset=utf-8")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            @override
            def log_message(self, format: str, *args: object) -> None:
                """Log nothing: the terminal is for the stack."""

        self._server: Final = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self.url: Final = f"http://{LOOPBACK}:{self._server.server_port}"

    def __enter__(self) -> Self:
        """Serve."""
        threading.Thread(target=self._server.serve_forever, name="waterfall", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()


def _list_page(traces: Sequence[Sequence[ReceivedSpan]]) -> str:
    rows = "".join(_list_row(spans) for spans in traces if spans)
    head = "<tr><th>request<th>spans<th>services<th>duration<th>"
    return _page("Traces", f"<table>{head}{rows}</table>" if rows else "<p>None yet. Make a call, then reload.</p>")


def _list_row(spans: Sequence[ReceivedSpan]) -> str:
    root = _roots(spans)[0]
    path = root.attributes.get("url.path", "")
    services = " ".join(_chip(name) + escape(name) for name in dict.fromkeys(span.service for span in spans))
    error = '<span class="error">error</span>' if any(span.is_error for span in spans) else ""
    what = escape(f"{root.attributes.get('http.request.method', '')} {path}".strip() or root.name)
    return (
        f'<tr><td class="name"><a href="/trace/{root.trace_id}">{what}</a><td class="n">{len(spans)}<td>{services}'
        f'<td class="n">{root.duration_ms:.1f} ms<td>{error}'
    )


def _trace_page(spans: Sequence[ReceivedSpan]) -> str:
    if not spans:
        return _page("Trace", "<p>Not here: forgotten, or not come yet.</p>")
    start, end = min(span.start_ns for span in spans), max(span.end_ns for span in spans)
    rows = "".join(_trace_row(span, depth, start, max(end - start, 1)) for span, depth in _in_order(spans))
    head = f'<tr><th>span<th class="time">{(end - start) / 1e6:.1f} ms<th>duration'
    return _page(f"Trace {spans[0].trace_id}", f"<table>{head}{rows}</table>")


def _trace_row(span: ReceivedSpan, depth: int, start: int, length: int) -> str:
    left, width = (span.start_ns - start) / length * 100, (span.end_ns - span.start_ns) / length * 100
    colour = "#d92d20" if span.is_error else _COLOURS.get(span.service, "#667085")
    name = escape(f"{span.service}  {span.name}")
    facts = dict(span.attributes) | ({"links": ", ".join(span.links)} if span.links else {})
    bar = f'<div class="bar" style="margin-left:{left:.2f}%;width:{width:.2f}%;background:{colour}"></div>'
    return (
        f'<tr><td class="name" style="padding-left:{0.6 + depth * 1.2}rem">'
        f"<details><summary>{_chip(span.service)}{name}</summary>{_facts(facts)}</details><td>{bar}"
        f'<td class="n">{span.duration_ms:.2f} ms'
    )


def _facts(facts: Mapping[str, object]) -> str:
    return "<dl>" + "".join(f"<dt>{escape(key)}<dd>{escape(str(value))}" for key, value in facts.items()) + "</dl>"


def _chip(service: str) -> str:
    return f'<span class="service" style="background:{_COLOURS.get(service, "#667085")}"></span>'


def _roots(spans: Sequence[ReceivedSpan]) -> list[ReceivedSpan]:
    known = {span.span_id for span in spans}
    return [span for span in spans if span.parent_id not in known]


def _in_order(spans: Sequence[ReceivedSpan]) -> Iterator[tuple[ReceivedSpan, int]]:
    """Yield each span after its parent, with its depth; siblings by their start."""

    def below(span: ReceivedSpan, depth: int) -> Iterator[tuple[ReceivedSpan, int]]:
        yield span, depth
        for child in spans:
            if child.parent_id == span.span_id:
                yield from below(child, depth + 1)

    for root in _roots(spans):
        yield from below(root, 0)


def _page(title: str, content: str) -> str:
    home = '<p><a href="/">all traces</a></p>'
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
        f"<h1>{escape(title)}</h1>{home}{content}</html>"
    )
