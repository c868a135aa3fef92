"""schemathesis reads the API's description, and sends what it allows and what it forbids."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import SearchStrategy
from schemathesis import GenerationMode, checks

from consistentid.generation.generator import PortraitGenerator
from consistentid.web.app import create_app
from consistentid.web.config import ServerConfig
from consistentid.web.service import PortraitService

EXAMPLES = 10  # for each operation, allowed and forbidden
CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]


@pytest.fixture(scope="module")
def schema(generator: PortraitGenerator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    config = ServerConfig(store=tmp_path_factory.mktemp("schema"), rate="1000000/minute", max_steps=2, drain=1)
    app = create_app(config, PortraitService(config, [generator]))  # not started: jobs stay queued
    yield schemathesis.openapi.from_asgi("/v1/openapi.json", app)
    app.state.service.close()


def _answers(cases: SearchStrategy[Any]) -> None:
    @given(case=cases)
    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def answer(case: Any) -> None:
        case.call_and_validate(base_url="http://localhost", checks=CHECKS)

    with suppress(Unsatisfiable):  # nothing can be wrong with some requests
        answer()


def test_answers_are_as_described(schema: Any) -> None:
    """With a loop of our own: the plugin of schemathesis does not know this pytest."""
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) >= 12
    for operation in operations:
        if operation.path.endswith("/events"):  # a stream without an end
            continue

        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            _answers(operation.as_strategy(generation_mode=mode))
