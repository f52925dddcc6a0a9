"""plural from Python: prepare data, train, ask, read figures.

    import plural

    MODEL = "Qwen/Qwen2.5-0.5B-Instruct"
    corpus = plural.prepare("my.jsonl", "my.h5", format="chat", tokenizer=MODEL)
    recipe = plural.Recipe(base="recipes/starter.yaml", data={"train": corpus}, name="mine")
    run = plural.train(recipe, ranks=2)
    for answer in plural.generate(MODEL, corpus, adapter=run.result, possibilities="sample"):
        print(answer.prompt, [response.text for response in answer.responses])
    plural.read_metrics(run).plot(x="step", y="loss")

Owns: nothing but these names. Every function runs the command of its name, in processes of its own, and has
its options, files and errors; docs/python.md. Thread rule: functions may be called from any thread.
"""

from plural.answers import Answer, Response, generate, read_answers
from plural.commands import PluralError, prepare
from plural.recipe import Recipe
from plural.runs import Run, read_metrics, train

__all__ = [
    "Answer",
    "PluralError",
    "Recipe",
    "Response",
    "Run",
    "generate",
    "prepare",
    "read_answers",
    "read_metrics",
    "train",
]
