"""Spans of OpenTelemetry: who connects, what is published, which methods are called, how lanes come to be.

It needs the package ``opentelemetry-api``, which ``fanwire[otel]`` brings. A hub that is not ``instrument``-ed has none
of this, and pays nothing for it. Spans name channels, methods and connections; no query, header or argument is in them.
"""

from typing import Any
from weakref import WeakKeyDictionary

import anyio

from fanwire._engine import Opening, __version__
from fanwire._loop import Callback
from fanwire.client import Client
from fanwire.hub import Hub
from fanwire.methods import Method, Methods
from fanwire.openings import Openings

try:
    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, Tracer, TracerProvider
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as error:
    raise ImportError(
        "fanwire.otel needs the package opentelemetry-api: pip install 'fanwire[otel]'", name=error.name
    ) from error

__all__ = ["instrument"]

CARRIED = ("traceparent", "tracestate")
"""Headers of a handshake that say of which trace it is a part (W3C Trace Context)."""


def instrument(hub: Hub, tracer_provider: TracerProvider | None = None) -> None:
    """Have a hub make spans, from its next serving on. To be called once, behind its methods and before it serves.

    - ``connect``: from when the application is asked until the client is let in or refused; part of the trace that the
      handshake's ``traceparent`` names. Only of clients that some callback is asked or told about.
    - ``publish``: a call of ``publish`` or ``publish_many``; part of the trace that the caller is in.
    - ``call NAME``: a method at work, with a link to its client's ``connect``. Not of methods that give streams.
    - ``lane``: until a relay's lane is live, or could not be had. Its gap has it as an exemplar in ``/metrics``.

    Args:
        tracer_provider: None is OpenTelemetry's own: what the program has set, else one that makes nothing.

    Raises:
        TypeError: `hub` is no Hub.
        RuntimeError: it serves, or is instrumented already.
    """
    if not isinstance(hub, Hub):
        raise TypeError(f"hub must be a Hub, not {type(hub).__name__}")
    if hub._is_serving or hub._callbacks.tracing is not None:
        raise RuntimeError("a hub is instrumented once, before it serves")
    tracing = Tracing(trace.get_tracer("fanwire", __version__, tracer_provider))
    hub._callbacks.tracing = tracing
    for methods in (hub._callbacks.methods, *hub._callbacks.endpoints.values()):
        tracing.trace_methods(methods)
    tracing.trace_publishing(hub)


class Tracing:
    """What makes the spans of one hub."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._propagator = TraceContextTextMapPropagator()
        # Of clients whose opening was recorded, for what they call later.
        self._connects: WeakKeyDictionary[Client, SpanContext] = WeakKeyDictionary()

    # Clients

    def openings(self, *arguments: Any) -> Openings:
        """Those of one serving."""
        return TracedOpenings(self, *arguments)

    def connect(self, event: Opening) -> Any:
        """A span for an opening, as a context manager."""
        carried = {name.lower(): value for name, value in event.headers if name.lower() in CARRIED}
        attributes = {
            "fanwire.transport": event.protocol,
            "url.path": event.target.partition("?")[0],
            "network.peer.address": event.peer,
        }
        context = self._propagator.extract(carried)
        return self._tracer.start_as_current_span("connect", context, kind=SpanKind.SERVER, attributes=attributes)

    def note(self, client: Client, span: Span, *, is_let_in: bool) -> None:
        """What became of it."""
        if span.is_recording():
            span.set_attributes({"fanwire.connection": str(client), "fanwire.accepted": is_let_in})
            if is_let_in:
                self._connects[client] = span.get_span_context()

    # Methods

    def trace_methods(self, methods: Methods) -> None:
        """Have each call be a span."""
        for method in methods:
            if not method.is_stream:
                method.callback = TracedCall(self, method)

    def call(self, name: str, client: Client) -> Any:
        """A span for a call, as a context manager."""
        known = self._connects.get(client)
        links = [] if known is None else [Link(known)]
        attributes = {"fanwire.method": name, "fanwire.connection": str(client)}
        # Whatever the pump's task is part of, a call is no part of it.
        return self._tracer.start_as_current_span(
            f"call {name}", Context(), kind=SpanKind.SERVER, links=links, attributes=attributes
        )

    # Publications

    def trace_publishing(self, hub: Hub) -> None:
        """Have what the program publishes by this hub be spans."""
        for name in ("publish", "publish_many"):
            setattr(hub, name, self._published(getattr(hub, name)))

    def _published(self, publish: Any) -> Any:
        def traced(channel: Any, *arguments: Any, **terms: Any) -> Any:
            where = {"messaging.system": "fanwire", "messaging.destination.name": str(channel)}
            with self._tracer.start_as_current_span("publish", kind=SpanKind.PRODUCER, attributes=where):
                return publish(channel, *arguments, **terms)

        return traced

    # Lanes

    def lane_begins(self, name: str, method: str) -> Span:
        """A connection to the backend is begun for it."""
        attributes = {"fanwire.lane": name, "fanwire.method": method}
        return self._tracer.start_span("lane", Context(), kind=SpanKind.CLIENT, attributes=attributes)

    def lane_ends(self, span: Span, why: str = "") -> tuple[str, str] | None:
        """The lane is live, or could not be had. Gives the trace and the span, where they are recorded."""
        is_recorded = span.is_recording()
        if why:
            span.set_status(Status(StatusCode.ERROR, why))
        span.end()
        context = span.get_span_context()
        return (f"{context.trace_id:032x}", f"{context.span_id:016x}") if is_recorded else None


class TracedOpenings(Openings):
    """Openings of which each is a span."""

    def __init__(self, tracing: Tracing, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._tracing = tracing

    async def _open(self, client: Client, event: Opening, scope: anyio.CancelScope | None = None) -> None:
        with self._tracing.connect(event) as span:
            await super()._open(client, event, scope)
            is_let_in = client in self.roster or client.id not in self._clients
            self._tracing.note(client, span, is_let_in=is_let_in)


class TracedCall(Callback):
    """A method's function of which each call is a span."""

    __slots__ = ("_name", "_tracing")

    def __init__(self, tracing: Tracing, method: Method) -> None:
        super().__init__(method.callback.function)
        self._tracing, self._name = tracing, method.name

    async def __call__(self, *arguments: Any) -> Any:
        with self._tracing.call(self._name, arguments[0]):
            return await super().__call__(*arguments)
