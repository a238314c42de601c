"""The demo: one support agent, run twice, with attribkit off and on."""
