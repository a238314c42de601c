"""Attribution, exact cost and budgets for every model call of an LLM agent."""
