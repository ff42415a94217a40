"""Fits and tests a model of anomalib on one category, for compare_anomalib.py.

    ENVIRONMENT/bin/python imvad_jax/benchmarks/anomalib_driver.py --model=padim --root=MVTEC \\
        --category=screw --layers=layer1,layer2,layer3 --out=FILE.json

Run by the interpreter of an environment that has anomalib; imports nothing of this project. What is
asked of anomalib is the work that ours does; the rest is as anomalib has it.
"""

import argparse
import json
import sys
import time
from pathlib import Path

NO_ANOMALIB = 3  # exit status
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
METRICS = {  # our name: anomalib's class, and the fields of its batches
    "image_auroc": ("AUROC", ("pred_score", "gt_label")),
    "image_ap": ("AUPR", ("pred_score", "gt_label")),
    "pixel_auroc": ("AUROC", ("anomaly_map", "gt_mask")),
    "pixel_ap": ("AUPR", ("anomaly_map", "gt_mask")),
    "pixel_pro": ("AUPRO", ("anomaly_map", "gt_mask")),
}


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--versions", action="store_true", help="import all; print the versions")
    parser.add_argument("--model", choices=("padim", "patchcore"), default="padim")
    parser.add_argument("--root", help="directory of the dataset, laid out as MVTec AD")
    parser.add_argument("--category")
    parser.add_argument("--image_size", type=int, default=256)
    parser.add_argument("--crop_size", type=int, default=0, help="0: no crop")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2, help="processes that read the files")
    parser.add_argument("--backbone", default="resnet18", help="a name that timm has")
    parser.add_argument("--layers", default="layer1,layer2,layer3", help="separated by commas")
    parser.add_argument("--weights", help="safetensors with timm's names; left out: random")
    parser.add_argument("--channels", type=int, default=0, help="of padim; 0: anomalib's default")
    parser.add_argument("--coreset_ratio", type=float, default=0.1, help="of patchcore")
    parser.add_argument("--neighbors", type=int, default=9, help="of patchcore")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", help="directory for what anomalib writes")
    parser.add_argument("--out", help="JSON file: versions, seconds, metrics")
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
    steps += [v2.Normalize(MEAN, STD)]
    wanted = [
        getattr(metrics, kind)(fields=fields, prefix=f"{name}:")
        for name, (kind, fields) in METRICS.items()
    ]
    given = {
        "backbone": args.backbone,
        "layers": args.layers.split(","),
        "pre_trained": False,
        "pre_processor": PreProcessor(v2.Compose(steps)),
        "evaluator": metrics.Evaluator(test_metrics=wanted),
        "visualizer": False,
    }
    if args.model == "padim":
        model = models.Padim(n_features=args.channels or None, **given)
    else:
        model = models.Patchcore(
            coreset_sampling_ratio=args.coreset_ratio, num_neighbors=args.neighbors, **given
        )
    if args.weights:
        load_weights(model.model.feature_extractor.feature_extractor, args.weights)
    return model


def load_weights(backbone, path: str) -> None:
    """Fills the backbone from a file that may hold more; ends the program where it holds less."""
    from safetensors.torch import load_file

    missing, _ = backbone.load_state_dict(load_file(path), strict=False)
    lacking = [name for name in missing if not name.endswith("num_batches_tracked")]
    if lacking:
        sys.exit(f"error: {path}: lacks {', '.join(lacking[:3])} of {len(lacking)} tensors")


def measure(args: argparse.Namespace) -> dict:
    """Fits, validates (which finds anomalib's thresholds) and tests; `{versions, seconds, ...}`."""
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
    # Validation is kept out of the fit, of whose only epoch it would be a part.
    engine = Engine(
        default_root_dir=Path(args.scratch), accelerator="cpu", check_val_every_n_epoch=2,
        callbacks=[ModelCheckpoint(save_top_k=0)],
    )  # fmt: skip
    lap("set_up_s")
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
