"""Fits and tests a model of anomalib on one category, for compare_anomalib.py.

    ENVIRONMENT/bin/python imvad_jax/benchmarks/anomalib_driver.py --model=padim --root=MVTEC \\
        --category=screw --layers=layer1,layer2,layer3 --out=FILE.json

Run by the interpreter of an environment that has anomalib; imports nothing of this project. What is
asked of anomalib is the work that ours does; the rest is as anomalib has it. Nothing is downloaded:
networks start at random, and a backbone is filled from --weights.
"""

# anomalib and what it brings are no dependency, and may be absent.
# pyright: reportMissingImports=false

import argparse
import contextlib
import functools
import json
import sys
import time
from pathlib import Path
from unittest import mock

NO_ANOMALIB = 3  # exit status
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
MODELS = {  # as --model has them: the class of anomalib, and where its frozen backbone lies
    "padim": ("Padim", "feature_extractor.feature_extractor"),
    "patchcore": ("Patchcore", "feature_extractor.feature_extractor"),
    "stpm": ("Stfpm", "teacher_model.feature_extractor"),
    "rd4ad": ("ReverseDistillation", "encoder.feature_extractor"),
    "fastflow": ("Fastflow", "feature_extractor"),
    "cfa": ("Cfa", "feature_extractor"),
    "draem": ("Draem", ""),
    "csflow": ("Csflow", ""),
}
BACKBONE = {  # arguments by which the class is told its backbone
    "padim": ("backbone", "layers", "pre_trained"),
    "patchcore": ("backbone", "layers", "pre_trained"),
    "stpm": ("backbone", "layers"),
    "rd4ad": ("backbone", "layers", "pre_trained"),
    "fastflow": ("backbone", "pre_trained"),
    "cfa": ("backbone",),
}
METRICS = {  # our name: anomalib's class, and the fields of its batches
    "image_auroc": ("AUROC", ("pred_score", "gt_label")),
    "image_ap": ("AUPR", ("pred_score", "gt_label")),
    "pixel_auroc": ("AUROC", ("anomaly_map", "gt_mask")),
    "pixel_ap": ("AUPR", ("anomaly_map", "gt_mask")),
    "pixel_pro": ("AUPRO", ("anomaly_map", "gt_mask")),
}


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0], allow_abbrev=False)
    parser.add_argument("--versions", action="store_true", help="import all; print the versions")
    parser.add_argument("--model", choices=tuple(MODELS), default="padim")
    parser.add_argument("--root", help="directory of the dataset, laid out as MVTec AD")
    parser.add_argument("--category")
    parser.add_argument("--image_size", type=int, default=256)
    parser.add_argument("--crop_size", type=int, default=0, help="0: no crop")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2, help="processes that read the files")
    parser.add_argument("--backbone", default="resnet18", help="a name that timm has")
    parser.add_argument("--layers", default="layer1,layer2,layer3", help="separated by commas")
    parser.add_argument("--weights", help="safetensors with timm's names; left out: random")
    parser.add_argument(
        "--settings", type=json.loads, default={}, help="JSON: further arguments of the class"
    )
    parser.add_argument("--epochs", type=int, default=0, help="0: a model that is not trained")
    parser.add_argument("--steps_per_epoch", type=int, default=0, help="0: all of them")
    parser.add_argument("--textures", help="of draem: folder of pictures; left out: noise")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", help="directory for what anomalib writes")
    parser.add_argument("--out", help="JSON file: versions, seconds, metrics, ...")
    return parser.parse_args(arguments)


def find_versions() -> dict[str, str]:
    """Imports what a run does and returns the versions."""
    import anomalib
    import anomalib.engine
    import anomalib.models
    import lightning
    import timm
    import torch
    import torchvision

    packages = (anomalib, torch, torchvision, lightning, timm)
    return {package.__name__: package.__version__ for package in packages}


def make_model(args: argparse.Namespace):
    """The unfitted model: our geometry and the five metrics, no pictures of the results."""
    from anomalib import metrics, models
    from anomalib.pre_processing import PreProcessor
    from torchvision.transforms import v2

    size, crop = args.image_size, args.crop_size
    steps = [v2.Resize((size, size), antialias=True)]
    steps += [v2.CenterCrop((crop, crop))] if crop else []
    steps += [v2.Normalize(MEAN, STD)] if args.model != "draem" else []
    wanted = [
        getattr(metrics, kind)(fields=fields, prefix=f"{name}:")
        for name, (kind, fields) in METRICS.items()
    ]
    given = {
        "pre_processor": PreProcessor(v2.Compose(steps)),
        "evaluator": metrics.Evaluator(test_metrics=wanted),
        "visualizer": False,
    }
    told = {"backbone": args.backbone, "layers": args.layers.split(","), "pre_trained": False}
    given |= {name: told[name] for name in BACKBONE.get(args.model, ())}
    if args.model == "draem":  # an absent folder would be downloaded
        folder = Path(args.textures or args.scratch)
        folder.mkdir(parents=True, exist_ok=True)
        given["dtd_dir"] = folder
    kind, place = MODELS[args.model]
    with no_downloads():
        model = getattr(models, kind)(**given, **args.settings)
    if args.weights:
        load_weights(model.model.get_submodule(place), args.weights)
    return model


@contextlib.contextmanager
def no_downloads():
    """Networks that are made meanwhile start at random, whatever weights are asked for."""
    import timm
    import torchvision
    from anomalib.models.image.csflow import torch_model as csflow

    places = (
        (timm, "create_model", {"pretrained": False}),
        (torchvision.models, "resnet18", {"weights": None}),  # of cfa, as the next
        (torchvision.models, "wide_resnet50_2", {"weights": None}),
        (csflow, "efficientnet_b5", {"weights": None}),
    )

    def at_random(make, changes):
        return functools.wraps(make)(lambda *args, **given: make(*args, **(given | changes)))

    with contextlib.ExitStack() as stack:
        for module, name, changes in places:
            make = at_random(getattr(module, name), changes)
            stack.enter_context(mock.patch.object(module, name, make))
        yield


def load_weights(backbone, path: str) -> None:
    """Fills the backbone from a file that may hold more; ends the program where it holds less."""
    from safetensors.torch import load_file

    missing, _ = backbone.load_state_dict(load_file(path), strict=False)
    lacking = [name for name in missing if not name.endswith("num_batches_tracked")]
    if lacking:
        sys.exit(f"error: {path}: lacks {', '.join(lacking[:3])} of {len(lacking)} tensors")


def make_clock():
    """A callback that keeps the time of each epoch's end, and the steps taken until then."""
    from lightning.pytorch.callbacks import Callback

    class Clock(Callback):
        def __init__(self):
            self.ends, self.steps = [], []

        def on_train_epoch_end(self, trainer, pl_module):
            self.ends.append(time.perf_counter())
            self.steps.append(trainer.global_step)

    return Clock()


def measure(args: argparse.Namespace) -> dict:
    """Fits, validates (which finds anomalib's thresholds) and tests; `{versions, seconds, ...}`.

    Of a trained model `epoch_s` are the seconds of each epoch, the first one from the start of the
    fit, and `steps` those of an epoch.
    """
    start = time.perf_counter()
    versions = find_versions()
    import torch
    from anomalib.callbacks.checkpoint import ModelCheckpoint
    from anomalib.data import MVTecAD
    from anomalib.engine import Engine
    from lightning import seed_everything

    seconds = {}

    def lap(name: str) -> None:
        nonlocal start
        start, before = time.perf_counter(), start
        seconds[name] = start - before

    lap("import_s")
    seed_everything(args.seed)
    model = make_model(args)
    data = MVTecAD(
        root=args.root, category=args.category, train_batch_size=args.batch_size,
        eval_batch_size=args.batch_size, num_workers=args.workers,
    )  # fmt: skip
    trained = {"max_epochs": args.epochs} if args.epochs else {}
    trained |= {"limit_train_batches": args.steps_per_epoch} if args.steps_per_epoch else {}
    clock = make_clock()
    # Validation is kept out of the fit, of whose epochs it would be a part.
    engine = Engine(
        default_root_dir=Path(args.scratch), accelerator="cpu",
        check_val_every_n_epoch=max(args.epochs, 1) + 1,
        callbacks=[ModelCheckpoint(save_top_k=0), clock], **trained,
    )  # fmt: skip
    lap("set_up_s")
    begin = start
    engine.fit(model=model, datamodule=data)
    lap("fit_s")
    engine.validate(model=model, datamodule=data)
    lap("validate_s")
    (row,) = engine.test(model=model, datamodule=data)
    lap("test_s")
    return {
        "versions": versions,
        "threads": torch.get_num_threads(),
        "seconds": seconds,
        "metrics": {name: find_metric(row, name) for name in METRICS},
        "images": [len(data.train_data), len(data.test_data)],
        "epoch_s": [end - before for before, end in zip([begin, *clock.ends], clock.ends)],
        "steps": clock.steps[0] if clock.steps else 0,
    }


def find_metric(row: dict[str, float], name: str) -> float:
    """The figure whose key in Lightning's row starts with the prefix that `make_model` gave it."""
    (value,) = (value for key, value in row.items() if key.startswith(f"{name}:"))
    return float(value)


def main() -> int:
    """The program."""
    args = parse(sys.argv[1:])
    try:
        import anomalib  # noqa: F401
    except ImportError as error:
        print(f"error: {sys.executable} has no anomalib ({error})", file=sys.stderr)
        return NO_ANOMALIB
    if args.versions:
        print(json.dumps(find_versions()))
        return 0
    Path(args.out).write_text(json.dumps(measure(args)) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
