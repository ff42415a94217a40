"""The programs that a user starts: each is the module of this package of that name.

A new program is a file here and a line below: `imvad --help`, docs/flags.md and the suggestions for
typos take it from there.
"""

GROUPS = {
    "A detector of your own parts": {
        "demo": "draw parts, fit a detector on the good ones, show what it finds in the others",
        "fit": "fit a detector on a folder of good parts",
        "predict": "judge new images with it: verdicts, outlines, a page to look at",
        "export": "write it as one file that runs without this package",
    },
    "Methods compared": {
        "run": "fit one method on a dataset and evaluate it: a row of the table",
        "table": "every method on every category, beside the published figures",
        "benchmark": "how fast methods fit, train and score on this machine",
        "suite": "what a few minutes on an unknown device should bring",
        "results": "one page of the result files of many runs",
    },
    "Tools": {
        "make_demo_data": "draw the demo dataset alone",
        "contact_sheet": "show what an augmentation makes of your images",
        "tune_convolution": "measure the forms of convolution on this processor",
    },
}
PROGRAMS = {name: text for group in GROUPS.values() for name, text in group.items()}
# They write the repository's own pages, in a checkout: python -m experiments.NAME
OF_THE_REPOSITORY = ("document", "fidelity")
