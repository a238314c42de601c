"""Cohere's second API: chat, whole and streamed, embed and rerank."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from attribkit.testing.answers.base import JSON, Answer, Context, Event, pieces, text_of, words_for
from attribkit.testing.journal import Charge
from attribkit.testing.tokens import Tokens, tokens_of

__all__ = ["cohere"]


def _usage(t: Tokens) -> JSON:
    counts = {"input_tokens": t.input, "output_tokens": t.output}
    return {"billed_units": counts, "tokens": counts}


def cohere(body: JSON, context: Context) -> Answer:
    """Answer /v2/chat, /v2/embed and /v2/rerank."""
    model = context.behaviour.model or body.get("model")
    name = context.path.rpartition("/")[2]
    if name == "embed":
        texts = body.get("texts") or []
        tokens = tokens_of(model, text_of(texts))
        meta = {"api_version": {"version": "2"}, "billed_units": {"input_tokens": tokens.input}}
        vectors = [[0.1, 0.2] for _ in texts]
        reply: JSON = {"id": f"emb-{context.seq}", "embeddings": {"float": vectors}, "texts": texts, "meta": meta}
        return Answer(reply, model=model, usage=meta, response_id=reply["id"])
    if name == "rerank":
        results = [{"index": i, "relevance_score": 0.5} for i, _ in enumerate(body.get("documents") or [])]
        meta = {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}}
        reply = {"id": f"rr-{context.seq}", "results": results, "meta": meta}
        return Answer(reply, model=model, usage=meta, response_id=reply["id"])
    prompt = text_of(body.get("messages"))
    words = words_for(model, prompt)
    tokens = tokens_of(model, prompt, words=len(words), limit=body.get("max_tokens"))
    usage = context.usage(tokens, _usage)
    facts: dict[str, Any] = {
        "response_id": f"co-{context.seq:08d}",
        "model": model,
        "usage": usage,
        "charges": (Charge(str(model), None, tokens),),
    }
    if body.get("stream"):

        def events() -> Iterator[Event]:
            def event(kind: str, **more: Any) -> Event:
                return kind, {"type": kind, **more}

            message = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
            yield event("message-start", id=facts["response_id"], delta={"message": message})
            yield event("content-start", index=0, delta={"message": {"content": {"type": "text", "text": ""}}})
            for text in pieces(" ".join(words), context.behaviour.chunks):
                yield event("content-delta", index=0, delta={"message": {"content": {"text": text}}})
            yield event("content-end", index=0)
            yield event("message-end", id=facts["response_id"], delta={"finish_reason": "COMPLETE", "usage": usage})

        return Answer(events=events(), **facts)
    content = [{"type": "text", "text": " ".join(words)}]
    reply = {
        "id": facts["response_id"],
        "finish_reason": "COMPLETE",
        "message": {"role": "assistant", "content": content},
        "usage": usage,
    }
    return Answer(reply, **facts)
