"""The flags of imvad benchmark."""

from absl import flags

from imvad_jax.benchmarks import anomalib_processes
from imvad_jax.programs import config_flags, devices, output, program, time_limit

METHOD = flags.DEFINE_list(
    "method", None, "Comma-separated methods, or all; package.module:Class for methods of your own "
    "package.",
)  # fmt: skip
PRESET = flags.DEFINE_string("preset", "official", "Named configuration: official, benchmark, ...")
WORKDIR = program.define_path("workdir", None, "Directory to write to.")
WEIGHTS = program.define_sources(
    "weights", "random", "Weights of the backbone, as for imvad run. Times do not depend on them.",
)  # fmt: skip
NUM_IMAGES = flags.DEFINE_integer(
    "num_images", 128, "Number of images to fit on and to score.", lower_bound=1
)
DATA_DIR = program.define_path(
    "data_dir", None, "Directory of a dataset whose good images are used. If omitted, images are "
    "random.",
)  # fmt: skip
DATASET = flags.DEFINE_string("dataset", "mvtec_ad", "With --data_dir: layout of the dataset.")
CATEGORY = flags.DEFINE_string("category", None, "With --data_dir: category to use.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of all random numbers.", lower_bound=0)
REPEATS = flags.DEFINE_integer("repeats", 5, "Repeats per measurement.", lower_bound=1)
SECONDS = flags.DEFINE_float(
    "seconds", 0.5, "Minimum duration of a repeat in seconds; short steps run several times.",
    lower_bound=0.0,
)  # fmt: skip
FIT_REPEATS = flags.DEFINE_integer(
    "fit_repeats", 1, "Number of timed fits after the first one, which compiles; 0 times only the "
    "first. Trained methods are fitted for one epoch unless --epochs is given.", lower_bound=0,
)  # fmt: skip
SCORE_BATCHES = flags.DEFINE_list(
    "score_batches", None, "Comma-separated batch sizes at which scoring is measured, besides 1. "
    "Default: the preset's batch size.",
)  # fmt: skip
KEPT = flags.DEFINE_bool(
    "kept_features", False, "Compare the training step with cached and with recomputed features "
    "of the frozen network (the field cache_features).",
)  # fmt: skip
COMPARE = flags.DEFINE_list(
    "compare", [], "Comma-separated comparisons, each measured in alternation with ours. torch: "
    "the backbone, and for padim and patchcore the same work, in plain PyTorch, which must be "
    "installed. torch_steps: the training step of every trained method and its frozen backbone, in "
    "PyTorch, eager and with torch.compile. onnx: the backbone, the scoring and the exports in "
    "ONNX Runtime, in the environment of 'make install-onnx'. anomalib: whole processes on "
    "--category, from fit to metrics, for padim, patchcore, and (over --epochs, 2 or more) stpm, "
    "rd4ad, fastflow, cfa, draem, csflow; see --anomalib_python. metrics: our five metrics of the "
    "test images of --category, or of synthetic maps, against scikit-learn and a plain PRO.",
)  # fmt: skip
ANOMALIB_PYTHON = program.define_path(
    "anomalib_python", None, "With --compare=anomalib: Python interpreter of an environment with "
    f"anomalib. To make one: {anomalib_processes.INSTALL}",
)  # fmt: skip
PROCESS_REPEATS = flags.DEFINE_integer(
    "process_repeats", 3, "With --compare=anomalib: repeats of each whole process.", lower_bound=1
)
PROFILE = program.define_path(
    "profile", None, "Directory in which jax.profiler writes traces of some training steps, the "
    "fit and some scored batches. The slowest operations are also printed.",
)  # fmt: skip
SCALING = flags.DEFINE_bool(
    "scaling", False, "Measure instead how cost grows with the number of images, the size of the "
    "memory bank and the number of devices, on synthetic images; see the --scaling_* flags.",
)  # fmt: skip
COMPILED = flags.DEFINE_bool(
    "compiled_cache", False, "Use compiled programs from --cache_dir. Reported compile times are "
    "then the times to read them.",
)  # fmt: skip
RENDER = flags.DEFINE_bool("render", False, "Only write --out from the files in --benchmarks_dir.")
BENCHMARKS_DIR = program.define_path(
    "benchmarks_dir", "benchmarks", "With --render: directory of stored benchmark.json files."
)
OUT = program.define_path("out", "BENCHMARKS.md", "With --render: page to write.")
CHECK = flags.DEFINE_bool(
    "check", False, "With --render: write nothing; exit with status 1 if the page is out of date."
)
SIZES = {
    "images": flags.DEFINE_list(
        "scaling_images", ["64", "128", "256", "512"], "With --scaling: comma-separated numbers of "
        "images to fit methods without training on; empty skips this part.",
    ),
    "bank": flags.DEFINE_list(
        "scaling_bank", ["1024", "4096", "16384", "65536"], "With --scaling: comma-separated sizes "
        "of PatchCore's memory bank, in patches; empty skips this part.",
    ),
    "devices": flags.DEFINE_list(
        "scaling_devices", ["1", "2", "4", "8"], "With --scaling: comma-separated numbers of "
        "devices to score on; on the CPU, devices beyond the cores are virtual. Empty skips this "
        "part.",
    ),
}  # fmt: skip
config_flags.define_config_flags()
for module in (config_flags, devices, time_limit, output):
    flags.adopt_module_key_flags(module)  # --help shows them, too
