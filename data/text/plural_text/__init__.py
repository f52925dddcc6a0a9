"""The Python text side of plural: text to corpora, responses to figures.

    common/       errors, JSON lines, endpoints, the sentence encoder     imports nothing else of the package
    prepare/      text to a pre-tokenized corpus                          imports common
    metrics/      answers to figures with intervals                       imports common, prepare
    persona/      conversations with a model, and their figures           imports common, prepare, metrics
    ask/          questions to a model, a dialogue with it                imports common, prepare
    serve/        the same behind an endpoint                             imports common, prepare, ask
    postprocess   texts of answers, cleaned step by step                  imports common
    score         texts to the ids that are scored                        imports common, prepare, ask
    __main__      the table of commands; each command is imported only when it is called

Dependencies point one way; tests/text/layers_test.py holds this. The package reads and writes files. It knows
no MPI and none of the models that are trained; only common/encoder.py loads torch, for the sentence encoder.
Heavy libraries (h5py, tokenizers, sentencepiece, mistral-common, jinja2, sentence-transformers) are imported
where they are used, so that `--help` and usage errors answer at once.
"""
