"""`plural track`: figures of a run to TensorBoard, Weights & Biases and trackio. command.py is the command.

Layering: imports plural_text.common. The trackers' libraries are imported only when one is opened.
"""
