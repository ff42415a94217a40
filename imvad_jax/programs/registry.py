"""The programs that a user starts: each is the module of this package of that name.

A new program is a file here and a line below: `imvad --help`, docs/flags.md and the suggestions for
typos take it from there.
"""

GROUPS = {
    "A detector of your own parts": {
        "demo": "draw synthetic parts, fit a detector and show which defects it finds",
        "fit": "fit a detector on a folder of images of good parts",
        "predict": "score new images with it: verdicts, outlines and a report page",
        "export": "export it to one file that runs without this package",
        "audit": "check whether light, size or copies alone tell images apart",
    },
    "Comparing methods": {
        "run": "fit one method on a dataset and evaluate it",
        "table": "evaluate many methods on many categories, beside the published figures",
        "benchmark": "measure how fast methods fit, train and score on this machine",
        "suite": "measure a new device within a few minutes",
        "results": "make one page from the result files of many runs",
    },
    "Tools": {
        "make_demo_data": "draw only the demo dataset",
        "contact_sheet": "show the effect of an augmentation on your images",
        "tune_convolution": "compare our convolutions with XLA's on this CPU",
    },
}
PROGRAMS = {name: text for group in GROUPS.values() for name, text in group.items()}
# They write the repository's own pages, in a checkout: python -m experiments.NAME
OF_THE_REPOSITORY = ("document", "fidelity")
