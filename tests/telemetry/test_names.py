"""Names: what is written, and what is read of others."""

from __future__ import annotations

from typing import Any

import pytest

from attribkit.telemetry.names import PREVIOUS, field_of, fields_of, operation_of, read_aliases


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (
            {"gen_ai.system": "openai", "gen_ai.usage.prompt_tokens": 3},
            {"gen_ai.provider.name": "openai", "gen_ai.usage.input_tokens": 3},
        ),
        (
            {"gen_ai.usage.cache_creation.input_tokens": 4, "gen_ai.usage.cost": 0.5},
            {"gen_ai.usage.cache_write.input_tokens": 4, "gen_ai.usage.cost.amount": 0.5},
        ),
        (
            {
                "openinference.span.kind": "LLM",
                "llm.model_name": "gpt-5",
                "llm.token_count.prompt": 10,
                "llm.token_count.prompt_details.cache_read": 4,
            },
            {
                "gen_ai.operation.name": "chat",
                "gen_ai.request.model": "gpt-5",
                "gen_ai.usage.input_tokens": 10,
                "gen_ai.usage.cache_read.input_tokens": 4,
            },
        ),
        ({"gen_ai.usage.input_tokens": 1, "llm.usage.prompt_tokens": 9}, {"gen_ai.usage.input_tokens": 1}),
    ],
)
def test_previous_names_are_read(written: dict[str, Any], expected: dict[str, Any]) -> None:
    read = read_aliases(written)
    assert expected.items() <= read.items()
    assert written.items() <= read.items()


def test_no_name_is_both_current_and_previous() -> None:
    previous = [old for names in PREVIOUS.values() for old in names]
    assert len(previous) == len(set(previous))
    assert not set(previous) & set(PREVIOUS)


@pytest.mark.parametrize(
    ("attribute", "field"),
    [
        ("attribkit.tenant_id", "tenant_id"),
        ("attribkit.experiment", "experiment"),
        ("attribkit.cost.usd", None),
        ("attribkit.call.hop", None),
        ("tenant.id", None),
    ],
)
def test_fields(attribute: str, field: str | None) -> None:
    assert field_of(attribute) == field


def test_fields_of_a_span() -> None:
    attributes = {
        "attribkit.tenant_id": "acme",
        "tenant.id": "alias",
        "user.id": "u",
        "attribkit.zone": "z",
        "attribkit.cost.usd": "1",
        "attribkit.team": "",
        "http.route": "/",
    }
    assert fields_of(attributes) == {"tenant_id": "acme", "user_id": "u", "zone": "z"}


@pytest.mark.parametrize(
    ("attributes", "operation"),
    [
        ({"gen_ai.operation.name": "execute_tool", "openinference.span.kind": "LLM"}, "execute_tool"),
        ({"openinference.span.kind": "TOOL"}, "execute_tool"),
        ({"openinference.span.kind": "NEW"}, None),
        ({"mlflow.spanType": '"LLM"'}, "chat"),
        ({"llm.request.type": 3}, None),
        ({}, None),
    ],
)
def test_operations(attributes: dict[str, Any], operation: str | None) -> None:
    assert operation_of(attributes) == operation
