"""Requests made from the OpenAPI document, right and wrong ones: the server answers what it documents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from serve.running import Running, running

EXAMPLES = 40
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def short(causal_path: Path) -> Iterator[Running]:
    """With a context this short, every answer is."""
    with running(causal_path, load_settings={"context": 64}) as started:
        yield started


def test_the_document_is_kept(short: Running) -> None:
    document = schemathesis.openapi.from_url(f"{short.url}/openapi.json")
    operations = [result.ok() for result in document.get_all_operations()]
    assert {operation.label for operation in operations} >= {"POST /v1/chat/completions", "GET /metrics"}
    for operation in operations:

        @settings(
            max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
        )
        @given(case=operation.as_strategy())
        def try_one(case: schemathesis.Case) -> None:
            case.call_and_validate(checks=CHECKS)

        try_one()
