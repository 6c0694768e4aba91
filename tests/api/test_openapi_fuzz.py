"""schemathesis against the application: no 500, and every answer fits the schema that is published."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import CheckContext
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from support.documents import random_documents
from support.encoders import use_fake_encoder
from support.services import SOAK

from hyblink.app.api.application import create_api
from hyblink.app.bootstrap import build
from hyblink.app.core.settings import Settings
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.operations.collections import ensure_collection

EXAMPLES = 200 if SOAK else 20


@pytest.fixture(scope="module")
def web_schema(tmp_path_factory: pytest.TempPathFactory) -> Iterator[schemathesis.BaseSchema]:
    app = build(Settings(data_dir=tmp_path_factory.mktemp("fuzz")))
    use_fake_encoder(app)
    ensure_collection(app, CollectionSpec("default"))
    app.documents.bulk("default", random_documents(30, seed=1))
    schema = schemathesis.openapi.from_asgi("/openapi.json", create_api(app), headers={"Host": "127.0.0.1"})
    yield schema
    app.close()


OPERATIONS = 41


def no_fault(context: CheckContext, response: schemathesis.Response, case: schemathesis.Case) -> bool | None:
    """No server error, but that no leg answered within the deadline that the request itself has set."""
    if response.status_code == 503 and response.json()["error"]["code"] == "deadline_exceeded":
        return None
    return not_a_server_error(context, response, case)  # type: ignore[no-any-return]


def test_any_request_gets_a_documented_answer(web_schema: schemathesis.BaseSchema) -> None:
    operations = [result.ok() for result in web_schema.get_all_operations()]
    assert len(operations) >= OPERATIONS
    for operation in operations:

        @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(operation.as_strategy())
        def run(case: schemathesis.Case) -> None:
            case.call_and_validate(
                base_url="http://127.0.0.1",
                checks=[
                    no_fault,
                    status_code_conformance,
                    content_type_conformance,
                    response_schema_conformance,
                ],
            )

        run()


def test_the_fuzzer_would_see_a_500(make_app: Callable[..., object]) -> None:
    """The check itself can fail: an application whose search breaks is reported."""
    app = make_app()
    ensure_collection(app, CollectionSpec("default"))  # type: ignore[attr-defined]

    def broken(*_: object) -> None:
        raise RuntimeError("broken on purpose")

    app.search.search = broken  # type: ignore[attr-defined]
    operation = schemathesis.openapi.from_asgi("/openapi.json", create_api(app), headers={"Host": "127.0.0.1"})[
        "/v1/search"
    ]["POST"]  # type: ignore[arg-type]
    case = operation.Case(body={"query": "x"}, media_type="application/json")
    with pytest.raises(BaseException, match="(?s)broken|Server error|500"):
        case.call_and_validate(base_url="http://127.0.0.1", checks=[not_a_server_error])
