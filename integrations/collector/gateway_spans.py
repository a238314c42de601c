"""For rotel (--otlp-with-trace-processor): a gateway's own spans say who they are for, and no prompt goes further.

LiteLLM writes the attribution that attribkit sends it on one span of each call, as the text of a Python dict
(`metadata.spend_logs_metadata`). Here it gets the names that attribkit's own spans have. Attributes with message text
are dropped, whoever wrote them.
"""

import ast
import re

from rotel_sdk.open_telemetry.common.v1 import AnyValue, KeyValue

SPEND_METADATA = "metadata.spend_logs_metadata"
PREFIX = "attribkit."
CONTENT = re.compile(
    r"gen_ai\.(input|output)\.messages|gen_ai\.system_instructions|gen_ai\.(prompt|completion)(\..*)?"
    r"|llm\.[^.]+\.(messages|choices|input|output|instructions|prompt)|metadata\.requester_.*|hidden_params"
)


def fields_of(text):
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}


def process_spans(resource_spans):
    for scope_spans in resource_spans.scope_spans:
        for span in scope_spans.spans:
            kept = [one for one in span.attributes if not CONTENT.fullmatch(one.key)]
            names = {one.key for one in kept}
            for one in list(kept):
                if one.key == SPEND_METADATA and one.value is not None:
                    fields = fields_of(one.value.value)
                    kept += [
                        KeyValue(PREFIX + key, AnyValue(value))
                        for key, value in fields.items()
                        if PREFIX + key not in names
                    ]
            span.attributes = kept
