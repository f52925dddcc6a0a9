"""`plural build-responses`: several different replies to each prompt, from a model (command.py).

Layering: imports plural_text.common, plural_text.prepare, plural_text.ask and the steps of postprocess.
"""
