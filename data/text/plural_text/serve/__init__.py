"""`plural serve`: a model behind an OpenAI-compatible endpoint on this machine. command.py is the command.

Layering: imports plural_text.common, plural_text.prepare and the prompts of plural_text.ask.
"""
