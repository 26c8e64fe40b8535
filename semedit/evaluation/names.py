"""What can be named on the command line; it loads nothing, so that the help does not wait."""

DATASETS = (
    "zsre",
    "counterfact",
    "knowedit",
    "wikifactdiff",
    "mquake",
    "hallueditbench",
    "jsonl",
    "convsent",
    "canonical",
)
# where an answer is a name or the like, and what a model writes on the next line is no part of it
ONE_LINE = ("zsre", "counterfact", "knowedit", "wikifactdiff", "mquake", "hallueditbench")
OVERRIDES = ("in_context", "counterfactual", "verbatim", "adaptor", "ensemble")
BASELINES = ("all_in_context", "retrieve_and_prompt", "fine_tuned")
METHODS = (*OVERRIDES, *BASELINES)
