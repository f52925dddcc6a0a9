"""`plural track`: figures of a run to TensorBoard and Weights & Biases. command.py is the command.

Layering: imports plural_text.common. The trackers' libraries are imported only when one is opened.
"""
