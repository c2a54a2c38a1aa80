"""The OpenAPI description says what is so: schemathesis makes calls from it, right ones and wrong ones."""

import json
from collections import Counter
from typing import Any

import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi.checks import positive_data_acceptance

from ingest.intake.vendors import CALLS, Call
from tests.intake.serving import READY, Served, authorization, key_of

LINE = st.dictionaries(st.text(max_size=5), st.text(max_size=5) | st.integers() | st.none(), max_size=4)
schemathesis.openapi.media_type(
    "application/x-ndjson",
    st.lists(LINE, min_size=1, max_size=3).map(lambda lines: "\n".join(map(json.dumps, lines)).encode()),
)


@pytest.fixture(scope="module")
def description(served: Served) -> Any:
    return served.http.get("/openapi.json").json()


def test_every_call_is_described(description: Any) -> None:
    for call in CALLS:
        for method in call.methods:
            operation = description["paths"][call.path][method.lower()]
            (content,) = operation["requestBody"]["content"].values()
            jsonschema.validate(content["example"], content["schema"])
            assert operation["security"] == [{call.scheme: []}]
            told = {"200", "400", "401", "404", "405", "408", "413", "415", "429", "503"}
            assert operation["responses"].keys() == told
            for status, answer in operation["responses"].items():
                for kind in answer.get("content", {}).values():
                    if "example" in kind:
                        jsonschema.validate(kind["example"], kind["schema"])
                assert ("Retry-After" in answer.get("headers", {})) == (status in ("429", "503"))
    identifiers = [one["operationId"] for path in description["paths"].values() for one in path.values()]
    assert len(identifiers) == len(set(identifiers))


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("call", READY, ids=lambda call: call.path)
def test_schemathesis_finds_no_difference(served: Served, call: Call, mode: GenerationMode) -> None:
    """Calls made from the description, with bodies as it says or not: each is answered as it says.

    What stands in the path or the query beside the key is not looked at, so only bodies can be wrong.
    """
    api = schemathesis.openapi.from_url(f"{served.http.base_url}/openapi.json")
    key = key_of(call.format)
    params = {"apiKey": key} if call.scheme == "apiKey" else {}
    path = {"source": call.format} if "{source}" in call.path else {}
    is_json = call.media_type == "application/json"
    made = mode if is_json else GenerationMode.POSITIVE  # it does not know what is wrong in lines
    answered = Counter[int]()

    @settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def make_calls(data: st.DataObject) -> None:
        operation = api[call.path][data.draw(st.sampled_from(call.methods))]
        case: Case[Any] = data.draw(operation.as_strategy(generation_mode=made, query={}, path_parameters=path or None))
        if made is GenerationMode.NEGATIVE:
            assert case.meta
            assume(case.meta.components[ParameterLocation.BODY].mode is GenerationMode.NEGATIVE)
        elif mode is not made:
            case.body = data.draw(st.binary(max_size=200))
        excluded: list[Any] = [positive_data_acceptance] if mode is not made else []
        case.headers.update(authorization(call, key))
        case.query.update(params)
        answer = case.call_and_validate(excluded_checks=excluded)
        answered[answer.status_code] += 1

    make_calls()
    expected = 200 if mode is GenerationMode.POSITIVE else 400
    assert answered[expected] > answered.total() / 2, answered
