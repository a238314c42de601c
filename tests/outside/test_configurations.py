"""What lies in integrations/ can be read by those it is for: the keys are those that their components document."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent / "integrations"
KNOWN = {
    "otlp": {"protocols"},
    "memory_limiter": {"check_interval", "limit_percentage", "spike_limit_percentage", "limit_mib", "spike_limit_mib"},
    "transform": {"error_mode", "trace_statements", "metric_statements", "log_statements"},
    "batch": {"send_batch_size", "timeout", "send_batch_max_size", "metadata_keys"},
    "clickhouse": {
        *(
            "endpoint",
            "database",
            "username",
            "password",
            "ttl",
            "timeout",
            "create_schema",
            "compress",
            "async_insert",
        ),
        *("traces_table_name", "logs_table_name", "sending_queue", "retry_on_failure", "async_insert"),
    },
}
"""Component of the OpenTelemetry Collector -> what its README lists."""
MACROS = {"__timeFilter", "__timeInterval", "__conditionalAll"}
"""Of Grafana's ClickHouse data source."""
OTTL = {"set", "delete_matching_keys", "ExtractPatterns"}


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.yaml")), ids=lambda path: str(path.relative_to(ROOT)))
def test_yaml(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text()), dict)


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.json")), ids=lambda path: str(path.relative_to(ROOT)))
def test_json(path: Path) -> None:
    assert isinstance(json.loads(path.read_text()), dict)


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_python(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("room", sorted(path for path in ROOT.iterdir() if path.is_dir()), ids=lambda path: path.name)
def test_each_says_what_was_run(room: Path) -> None:
    said = (room / "README.md").read_text()
    assert "## What was run" in said and "Not run:" in said


def test_the_collectors_pipeline_stands_on_components_that_are_there() -> None:
    config = yaml.safe_load((ROOT / "collector/otelcol-contrib.yaml").read_text())
    assert set(config) == {"receivers", "processors", "exporters", "service"}
    for kind in ("receivers", "processors", "exporters"):
        for name, settings in config[kind].items():
            assert set(settings) <= KNOWN[name.partition("/")[0]], name
        for pipeline in config["service"]["pipelines"].values():
            assert set(pipeline[kind]) == set(config[kind])


def statements(config: dict[str, Any]) -> list[str]:
    found = []
    for name, settings in config["processors"].items():
        if name.startswith("transform"):
            for block in settings["trace_statements"]:
                assert set(block) <= {"context", "conditions", "statements"} and block["context"] == "span"
                found += block["statements"]
    return found


def test_the_collectors_statements_find_the_tenant_and_the_content() -> None:
    config = yaml.safe_load((ROOT / "collector/otelcol-contrib.yaml").read_text())
    found = statements(config)
    assert {name for one in found for name in re.findall(r"(\w+)\(", re.sub(r'"[^"]*"', "", one))} <= OTTL
    patterns = [re.compile(text.replace("\\\\", "\\")) for one in found for text in re.findall(r', "([^"]*)"\)', one)]
    litellm = "{'tenant_id': 'Zürich 東京', 'workflow': 'onboarding', 'plan': 'gold'}"
    groups: dict[str, str] = {}
    for pattern in patterns:
        matched = pattern.search(litellm)
        groups.update(matched.groupdict() if matched else {})
    assert groups == {"tenant_id": "Zürich 東京", "workflow": "onboarding"}
    content = ("gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.prompt.0.content", "llm.openai.messages")
    for key in (*content, "llm.openai.choices", "metadata.requester_metadata", "hidden_params"):
        assert any(pattern.search(key) for pattern in patterns), key
    for key in ("gen_ai.usage.input_tokens", "llm.openai.model", "attribkit.tenant_id", "metadata.spend_logs_metadata"):
        assert not any(pattern.search(key) for pattern in patterns), key


def test_the_dashboards_panels_stand_on_what_it_defines() -> None:
    board = json.loads((ROOT / "grafana/dashboard.json").read_text())
    variables = {variable["name"] for variable in board["templating"]["list"]}
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    schema = (ROOT / "clickhouse/schema.sql").read_text()
    taken = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and max(x for x, _ in cells) < 24
        taken |= cells
        for target in panel["targets"]:
            query = target["rawSql"]
            assert {panel["datasource"]["uid"], target["datasource"]["uid"]} == {"${datasource}"}
            assert set(re.findall(r"\$\{?(\w+)", query)) <= {
                *variables,
                "__timeFilter",
                "__timeInterval",
                "__conditionalAll",
            }
            assert "$__timeFilter(" in query
            for table in re.findall(r"FROM ([\w.]+)", query):
                assert re.search(rf"CREATE (TABLE|VIEW) IF NOT EXISTS {re.escape(table)}\b", schema), table
