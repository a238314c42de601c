"""Images, speech, transcriptions, and the list of models."""

from __future__ import annotations

from typing import Any

from attribkit.testing.answers.base import JSON, SERVED_AS, Answer, Context, now, words_for
from attribkit.testing.answers.forms import form_of
from attribkit.testing.journal import Charge
from attribkit.testing.tokens import Tokens, seed_of, tokens_of

__all__ = ["images", "models", "moderations", "speech", "transcriptions"]

_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
_SILENCE = b"ID3\x04\x00\x00\x00\x00\x00\x00" + b"\xff\xfb\x90\x00" + b"\x00" * 412


def images(body: JSON, context: Context) -> Answer:
    """Answer /images/generations and /images/edits."""
    if not body:
        body = dict(form_of(context.raw, context.content_type))
    prompt, model = str(body.get("prompt") or ""), str(body.get("model") or "gpt-image-1")
    count = max(1, int(body.get("n") or 1))
    text = 10 + len(prompt) // 4
    size = {"low": 272, "medium": 1056, "high": 4160}.get(str(body.get("quality")), 1056)
    tokens = Tokens(text, 0, size * count)
    usage = context.usage(
        tokens,
        lambda t: {
            "input_tokens": t.input,
            "input_tokens_details": {"text_tokens": t.input, "image_tokens": 0},
            "output_tokens": t.output,
            "output_tokens_details": {"text_tokens": 0, "image_tokens": t.output},
            "total_tokens": t.input + t.output,
        },
    )
    reply: JSON = {
        "created": now(),
        "background": "opaque",
        "output_format": "png",
        "quality": body.get("quality") or "medium",
        "size": body.get("size") or "1024x1024",
        "data": [{"b64_json": _PIXEL} for _ in range(count)],
        "usage": usage,
    }
    return Answer(reply, model=model, usage=usage, charges=(Charge(model, None, tokens),))


def speech(body: JSON, context: Context) -> Answer:
    """Answer /audio/speech with bytes; the real endpoint states no usage either."""
    model, text = str(body.get("model") or "gpt-4o-mini-tts"), str(body.get("input") or "")
    tokens = tokens_of(model, text)
    sound = _SILENCE * (1 + len(text) // 40)
    return Answer(sound, content_type="audio/mpeg", model=model, charges=(Charge(model, None, tokens),))


def transcriptions(body: JSON, context: Context) -> Answer:
    """Answer /audio/transcriptions and /audio/translations; Whisper is billed by the second, the others by token."""
    form: dict[str, Any] = form_of(context.raw, context.content_type) or body
    model = str(form.get("model") or "whisper-1")
    words = words_for(model, str(len(context.raw)))
    if model.startswith("whisper"):
        tokens = Tokens(0)
        usage = context.usage(tokens, lambda _: {"type": "duration", "seconds": 1 + len(context.raw) // 16_000})
    else:
        heard = 20 + seed_of(model, str(len(context.raw))) % 400
        tokens = Tokens(heard, 0, len(words) * 4 // 3, 0, heard)
        usage = context.usage(
            tokens,
            lambda t: {
                "type": "tokens",
                "input_tokens": t.input,
                "input_token_details": {"audio_tokens": t.audio_input, "text_tokens": 0},
                "output_tokens": t.output,
                "total_tokens": t.input + t.output,
            },
        )
    charges = (Charge(model, None, tokens),)
    if form.get("response_format") in ("text", "srt", "vtt"):
        return Answer(" ".join(words).encode(), content_type="text/plain", model=model, usage=usage, charges=charges)
    return Answer({"text": " ".join(words), "usage": usage}, model=model, usage=usage, charges=charges)


def moderations(body: JSON, context: Context) -> Answer:
    """Answer /moderations: nothing is ever flagged, and nothing is charged."""
    result = {"flagged": False, "categories": {}, "category_scores": {}, "category_applied_input_types": {}}
    model = str(body.get("model") or "omni-moderation-latest")
    reply: JSON = {"id": f"modr-{context.seq}", "model": model, "results": [result]}
    return Answer(reply, response_id=reply["id"], model=model)


def models(body: JSON, context: Context) -> Answer:
    """Answer /models."""
    names = sorted({*SERVED_AS, *SERVED_AS.values(), "text-embedding-3-small"})
    rows = [{"id": name, "object": "model", "created": 1_735_689_600, "owned_by": "system"} for name in names]
    name = context.path.removeprefix("/models").strip("/")
    if name:
        return Answer({"id": name, "object": "model", "created": 1_735_689_600, "owned_by": "system"})
    return Answer({"object": "list", "data": rows})
