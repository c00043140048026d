"""Spans to an OpenTelemetry collector, by OTLP over HTTP, in batches and from a thread of its own."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING

from mulle.core.errors import UsageError
from mulle.core.ports.traces import Span

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

__all__ = ["OtelTraces", "open_traces"]

_PATH = "/v1/traces"

_PATIENCE = 5_000
"""Milliseconds."""


def open_traces(url: str, service: str) -> OtelTraces | None:
    """Give what sends spans to a collector; None where no URL names one.

    Parameters
    ----------
    url : str
        ``http://host:4318``, with or without OTLP's path.
    service : str
        What the process is called there.

    Raises
    ------
    UsageError
        When the URL is none, or the extra is not installed.
    """
    if not url:
        return None
    if not url.startswith(("http://", "https://")):
        raise UsageError("setting otel is no URL of http", next="write it as http://host:4318")
    if find_spec("opentelemetry") is None:
        raise UsageError("otel is set and OpenTelemetry is not installed", next="pip install 'mulle[otel]', or unset otel")
    return OtelTraces(url if url.endswith(_PATH) else url.rstrip("/") + _PATH, service)


class OtelTraces:
    """Meets `mulle.core.ports.traces.Traces`."""

    def __init__(self, endpoint: str, service: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        from mulle import __version__

        # The library would write a traceback to stderr for each batch that a collector which is away does not take.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._resource = Resource.create({"service.name": service, "service.version": __version__})
        self._processor = BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=5))

    def add(self, span: Span) -> None:
        """Take a span; see the port."""
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        from opentelemetry.trace import SpanKind, Status, StatusCode

        self._processor.on_end(
            ReadableSpan(
                span.name,
                context=_context(span.context, remote=False),
                parent=_context(span.parent, remote=True) if span.parent else None,
                resource=self._resource,
                attributes=dict(span.attributes),
                kind=SpanKind.SERVER if span.name.startswith(("GET ", "POST ")) else SpanKind.INTERNAL,
                status=Status(StatusCode.ERROR, span.failed) if span.failed else Status(StatusCode.OK),
                start_time=span.began,
                end_time=span.ended,
                instrumentation_scope=InstrumentationScope("mulle"),
            )
        )

    def flush(self) -> None:
        """Send what is left, for some seconds at most."""
        self._processor.force_flush(_PATIENCE)


def _context(traceparent: str, *, remote: bool) -> SpanContext:
    from opentelemetry.trace import SpanContext, TraceFlags

    _, trace, span, flags = traceparent.split("-")
    return SpanContext(int(trace, 16), int(span, 16), is_remote=remote, trace_flags=TraceFlags(int(flags, 16)))
