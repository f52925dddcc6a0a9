"""The Python text side of plural: text to corpora, responses to figures.

Layering: this package reads and writes files. It knows no MPI and none of the models that are trained;
only encoder.py loads torch, for the sentence encoder. Heavy libraries (h5py, tokenizers, sentencepiece,
mistral-common, jinja2, sentence-transformers) are imported where they are used, so that `--help` and usage
errors answer at once.
"""
