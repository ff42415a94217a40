"""The flags of imvad benchmark."""

from absl import flags

from imvad_jax.benchmarks import anomalib_processes
from imvad_jax.programs import config_flags, devices, output, program, time_limit

METHOD = flags.DEFINE_list(
    "method", None, "Methods, separated by commas, or all; package.module:Class for those of a "
    "package of your own.",
)  # fmt: skip
PRESET = flags.DEFINE_string("preset", "official", "Named configuration: official, benchmark, ...")
WORKDIR = program.define_path("workdir", None, "Directory that is written to.")
WEIGHTS = program.define_sources(
    "weights", "random", "Weights of the backbone, as imvad run has them; no time depends on "
    "them.",
)  # fmt: skip
NUM_IMAGES = flags.DEFINE_integer(
    "num_images", 128, "Images that are fitted on and scored.", lower_bound=1
)
DATA_DIR = program.define_path(
    "data_dir", None, "Directory of a dataset whose good images are taken; left out: random ones."
)
DATASET = flags.DEFINE_string("dataset", "mvtec_ad", "Layout of the data.")
CATEGORY = flags.DEFINE_string("category", None, "With --data_dir: the category.")
SEED = flags.DEFINE_integer("seed", 0, "Seeds every random draw.", lower_bound=0)
REPEATS = flags.DEFINE_integer("repeats", 5, "Repeats of every measurement.", lower_bound=1)
SECONDS = flags.DEFINE_float(
    "seconds", 0.5, "Least seconds of a repeat; short steps are done several times.",
    lower_bound=0.0,
)  # fmt: skip
FIT_REPEATS = flags.DEFINE_integer(
    "fit_repeats", 1, "Fits after the first one, which compiles; 0: that one alone is timed. "
    "Trained methods are fitted for one epoch unless --epochs says otherwise.", lower_bound=0,
)  # fmt: skip
SCORE_BATCHES = flags.DEFINE_list(
    "score_batches", None, "Batch sizes that scoring is measured at besides 1; default: the "
    "preset's.",
)  # fmt: skip
KEPT = flags.DEFINE_bool(
    "kept_features", False, "Compare the training step with kept and with recomputed features."
)
COMPARE = flags.DEFINE_list(
    "compare", [], "torch: measure the same backbone and, for padim and patchcore, the same work "
    "in plain PyTorch, in turn; PyTorch must be installed. torch_steps: the training step of every "
    "trained method and its frozen backbone, eager and by torch.compile. anomalib: whole processes "
    "on --category, fit to metrics, in turn with anomalib; padim, patchcore, and stpm, rd4ad, "
    "fastflow, cfa, draem, csflow over the few --epochs that are named (2 or more); see "
    "--anomalib_python. metrics: our five metrics of the test images of --category, or of drawn "
    "maps, in turn with scikit-learn and a plain PRO.",
)  # fmt: skip
ANOMALIB_PYTHON = program.define_path(
    "anomalib_python", None, "With --compare=anomalib: the python of an environment that has it. "
    f"{anomalib_processes.INSTALL}",
)  # fmt: skip
PROCESS_REPEATS = flags.DEFINE_integer(
    "process_repeats", 3, "With --compare=anomalib: repeats of the whole processes.", lower_bound=1
)
PROFILE = program.define_path(
    "profile", None, "Directory below which jax.profiler writes a trace of some training steps, of "
    "the fit and of some scored batches; the operations that took longest are printed.",
)  # fmt: skip
SCALING = flags.DEFINE_bool(
    "scaling", False, "Measure instead how cost grows with the number of images, the size of the "
    "bank and the number of devices, on drawn images; see --scaling_images and the like.",
)  # fmt: skip
COMPILED = flags.DEFINE_bool(
    "compiled_cache", False, "Take compiled programs from --cache_dir; compile seconds are then "
    "those of reading them.",
)  # fmt: skip
RENDER = flags.DEFINE_bool("render", False, "Only write --out from the files in --benchmarks_dir.")
BENCHMARKS_DIR = program.define_path(
    "benchmarks_dir", "benchmarks", "With --render: directory of stored benchmark.json files."
)
OUT = program.define_path("out", "BENCHMARKS.md", "With --render: page to write.")
CHECK = flags.DEFINE_bool(
    "check", False, "With --render: only compare the page with the files; status 1 if it differs."
)
SIZES = {
    "images": flags.DEFINE_list(
        "scaling_images", ["64", "128", "256", "512"], "With --scaling: numbers of images that "
        "methods without training are fitted on; empty: none.",
    ),
    "bank": flags.DEFINE_list(
        "scaling_bank", ["1024", "4096", "16384", "65536"], "With --scaling: patches in the bank "
        "that patchcore scores against; empty: none.",
    ),
    "devices": flags.DEFINE_list(
        "scaling_devices", ["1", "2", "4", "8"], "With --scaling: devices to score on; on the CPU "
        "there may be more than cores, which are then virtual. Empty: none.",
    ),
}  # fmt: skip
config_flags.define_config_flags()
for module in (config_flags, devices, time_limit, output):
    flags.adopt_module_key_flags(module)  # --help shows them, too
