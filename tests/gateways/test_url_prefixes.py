"""Which URLs are a gateway's: by prefix, on borders of host and path only, and never by what merely looks alike."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attribkit.errors import ConfigurationError
from attribkit.gateways.route import Gateways

CONFIGURED = Gateways(
    {
        "http://gateway.internal": "portkey",
        "http://gateway.internal:9000": "litellm",
        "https://Shared.Internal./llm/": "tierup",
        "https://shared.internal/llm/openai": "openai",
        "https://shared.internal:8443/llm": "helicone",
        "http://[::1]:8787": "cloudflare",
        "http://bücher.example": "truefoundry",
        "https://default.internal:443": "anthropic",
        "http://127.0.0.1": "portkey",
        "https://openrouter.ai/private": "off",
        "https://api.portkey.ai": "litellm",
    }
)


@pytest.mark.parametrize(
    ("url", "dialect"),
    [
        ("http://gateway.internal", "portkey"),
        ("http://gateway.internal/", "portkey"),
        ("http://gateway.internal/v1/chat/completions", "portkey"),
        ("http://gateway.internal:80", "portkey"),
        ("http://gateway.internal:1234/v1", "portkey"),
        ("http://gateway.internal:9000/v1", "litellm"),
        ("HTTP://GATEWAY.internal/v1", "portkey"),
        ("http://gateway.internal./v1", "portkey"),
        ("http://user:secret@gateway.internal/v1", "portkey"),
        ("http://evil.example@gateway.internal/v1", "portkey"),
        ("http://gateway.internal?x=1", "portkey"),
        ("http://gateway.internal#x", "portkey"),
        ("https://gateway.internal", None),
        ("ftp://gateway.internal", None),
        ("gateway.internal", None),
        ("//gateway.internal", None),
        ("http://gateway.internal.evil.example", None),
        ("http://gateway.internal.evil.example/gateway.internal", None),
        ("http://gateway.internal@evil.example", None),
        ("http://gateway.internal:80@evil.example/", None),
        ("http://gateway.internal%2eevil.example", None),
        ("http://gateway.internal%00.evil.example", None),
        ("http://gateway.internal\\@evil.example", None),
        ("http://evil.example\\gateway.internal", None),
        ("http://evil.example/http://gateway.internal", None),
        ("http://evil.example?http://gateway.internal", None),
        ("http://evil.example#@gateway.internal", None),
        ("http://evilgateway.internal", None),
        ("http://sub.gateway.internal", None),
        ("http://gateway.internal..", None),
        ("http://gate\tway.internal", None),
        ("http://gateway.internal\n.evil.example", None),
        (" http://gateway.internal", None),
        ("http://gateway.internal:notaport", None),
        ("http://gateway.internal:99999", None),
        ("http://", None),
        ("", None),
        ("https://shared.internal/llm", "tierup"),
        ("https://shared.internal/llm/v1", "tierup"),
        ("https://shared.internal/llm/openai/v1", "openai"),
        ("https://shared.internal/llm/openaix", "tierup"),
        ("https://shared.internal:8443/llm/v1", "helicone"),
        ("https://shared.internal:8443/llm/openai/v1", "openai"),
        ("https://shared.internal:443/llm", "tierup"),
        ("https://shared.internal/llmx", None),
        ("https://shared.internal/", None),
        ("https://shared.internal/LLM", None),
        ("https://shared.internal/llm/../admin", None),
        ("https://shared.internal/llm/%2e%2E/admin", None),
        ("https://shared.internal/x/../llm/v1", "tierup"),
        ("https://shared.internal/./llm/v1", "tierup"),
        ("https://shared.internal/llm/v1.5/..", "tierup"),
        ("http://[::1]:8787/v1", "cloudflare"),
        ("http://[0:0:0:0:0:0:0:1]:8787/v1", "cloudflare"),
        ("http://[::1]/v1", None),
        ("http://[::2]:8787/v1", None),
        ("http://[::1:8787/v1", None),
        ("http://xn--bcher-kva.example/v1", "truefoundry"),
        ("http://BÜCHER.example/v1", "truefoundry"),
        ("https://default.internal", "anthropic"),
        ("https://default.internal:443/v1", "anthropic"),
        ("https://default.internal:8443/v1", None),
        ("http://127.0.0.1:54321/v1", "portkey"),
        ("http://127.0.0.1.evil.example/v1", None),
        ("http://localhost/v1", None),
    ],
)
def test_configured(url: str, dialect: str | None) -> None:
    route = CONFIGURED.match(url)
    assert (route.dialect if route is not None else None) == dialect


@pytest.mark.parametrize(
    ("url", "dialect"),
    [
        ("https://api.portkey.ai/v1", "litellm"),  # configured beats known
        ("https://openrouter.ai/api/v1", "openrouter"),
        ("https://openrouter.ai/private/v1", None),
        ("https://gateway.ai.cloudflare.com/v1/account/gateway/openai", "cloudflare"),
        ("https://oai.helicone.ai/v1", "helicone"),
        ("https://ai-gateway.helicone.ai", "helicone"),
        ("https://ai-gateway.vercel.sh/v1", "vercel"),
        ("https://gateway.truefoundry.ai", "truefoundry"),
        ("https://acme.truefoundry.cloud/api/llm", "truefoundry"),
        ("https://api.tierup.ai/v1", "tierup"),
        ("https://OPENROUTER.ai.:443/api/v1", "openrouter"),
        ("http://openrouter.ai/api/v1", None),
        ("https://helicone.ai.evil.example", None),
        ("https://evilhelicone.ai", None),
        ("https://openrouter.ai.evil.example", None),
        ("https://sub.openrouter.ai", None),
        ("https://api.openai.com/v1", None),
        ("https://api.anthropic.com", None),
        ("https://generativelanguage.googleapis.com", None),
        ("https://bedrock-runtime.us-east-1.amazonaws.com", None),
        ("https://my-resource.openai.azure.com", None),
    ],
)
def test_hosted(url: str, dialect: str | None) -> None:
    route = CONFIGURED.match(url)
    assert (route.dialect if route is not None else None) == dialect
    if dialect not in (None, "litellm"):
        assert Gateways({}, hosted=False).match(url) is None
        again = CONFIGURED.match(url)
        assert again is route


def test_a_route_knows_its_host() -> None:
    route = CONFIGURED.match("https://Shared.Internal./llm/v1")
    assert route is not None and route.host == "shared.internal"
    route = CONFIGURED.match("https://acme.truefoundry.cloud./api")
    assert route is not None and route.host == "acme.truefoundry.cloud"
    assert {route.dialect for route in CONFIGURED.routes} >= {"portkey", "litellm", "tierup"}


@pytest.mark.parametrize(
    "prefix",
    [
        *("gateway.internal", "//gateway.internal", "ftp://gateway.internal", "http://", "http://u@gateway.internal"),
        *("http://gateway.internal/?x=1", "http://gateway.internal#x", "http://gate way", "http://[::1", "http://h:x"),
        "",
    ],
)
def test_prefixes_that_are_none(prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="URL prefix") as refused:
        Gateways({prefix: "portkey"})
    assert refused.value.name == "gateways" and refused.value.value == prefix


HOSTS = st.sampled_from(["gateway.internal", "evil.example", "gateway.internal.evil.example", "127.0.0.1", "[::1]"])
PIECES = st.text(st.sampled_from(list("abgateway.internal:/@\\?#%2e[]0189 \t\n")), max_size=12)


@settings(deadline=None)
@given(st.builds("{}://{}{}{}{}".format, st.sampled_from(["http", "https"]), PIECES, HOSTS, PIECES, PIECES))
def test_what_a_client_would_connect_to_decides(url: str) -> None:
    """Where httpx would open a connection is where our headers may go."""
    import httpx

    route = CONFIGURED.match(url)
    if route is None:
        return
    there = httpx.URL(url)
    assert there.host.rstrip(".").lower() == route.host
    assert there.scheme in ("http", "https")
