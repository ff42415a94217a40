"""The pages, read as a browser would."""

import json
import re
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from imvad_jax.errors import UserError
from imvad_jax.reporting import heatmaps, published, report
from tests.reporting.made_up import HOSTILE, METRICS, made_up_predictions, made_up_record


class Page(HTMLParser):
    """Tags, links and visible text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.parts = [], [], []
        self.feed(text)
        self.text = re.sub(r"\s+", " ", " ".join(self.parts))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.parts.append(data)


def page_of(path):
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture
def with_pictures(run_dir):
    predictions, _ = made_up_predictions()
    images = [np.zeros((32, 32, 3), np.uint8)] * 6
    heatmaps.write_heatmaps(run_dir / "heatmaps", images, predictions)
    return run_dir


def test_report_holds_the_run(with_pictures):
    path = report.write_report(with_pictures)
    assert path == with_pictures / "report.html"
    text = page_of(path).text
    for expected in (
        "PaDiM on screw", ".778", "1.000", "benchmark .809 (ResNet-18)", "sigma = 2.0",
        "ResNet-18", "resnet18.safetensors (sha256 0123456789ab…)", "256 px, cropped to 224",
        "jax 0.10.0", "abc123", "a machine", "12.3", "weights & <b>more</b>",
        "python -m experiments.run --method=padim", published.NOTE,
    ):  # fmt: skip
        assert expected in text, expected


def test_hostile_names_are_escaped(with_pictures):
    path = report.write_report(with_pictures)
    page = page_of(path)
    assert "script" not in page.tags
    assert "b" in page.tags  # the page's own
    assert "alert(1)" in page.text  # the name is still shown
    assert f"score 2 · 1 of 3 good score as high {HOSTILE}" in page.text
    assert "<b>more" not in path.read_text()


def test_page_stands_alone(with_pictures):
    page = page_of(report.write_report(with_pictures))
    pictures = {link for link in page.links if link.startswith("heatmaps/")}
    assert len(pictures) == 6
    assert all((with_pictures / unquote(link)).is_file() for link in pictures)
    rest = [link for link in page.links if link not in pictures]
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in rest)
    assert page.tags.count("img") == 1 + 2 * 6  # the plots; most confused, then all


def test_most_confused_come_first(with_pictures):
    text = page_of(report.write_report(with_pictures)).text
    confused = text[text.index("Most confused") : text.index("All test images")]
    missed, alarms = confused.split("Good parts with the highest scores")
    assert re.findall(r"score +(\d)", missed) == ["2", "4", "5"]
    assert re.findall(r"score +(\d)", alarms) == ["3", "1", "0"]
    assert "1 of 3 defective score as low" in alarms


def test_kinds(with_pictures):
    text = page_of(report.write_report(with_pictures)).text
    # 8 of 9 pairs are in order.
    assert re.search(r"scratch +3 +2 +4 +5 +\.889", text)
    assert re.search(r"good +3 +0 +1 +3 +-", text)


def test_report_without_pictures(run_dir):
    page = page_of(report.write_report(run_dir))
    assert page.tags.count("img") == 1
    assert "test/good/0.png" in page.text


def test_report_without_predictions(run_dir):
    (run_dir / "predictions.npz").unlink()
    assert "stored no predictions" in page_of(report.write_report(run_dir)).text


def test_image_only_with_bad_scores(run_dir):
    predictions, _ = made_up_predictions(with_maps=False)
    predictions["image_score"][0] = np.nan
    np.savez(run_dir / "predictions.npz", **predictions)
    text = page_of(report.write_report(run_dir)).text
    assert "there are no maps" in text
    assert "score nan" in text


def test_no_published_figures_for_other_data(run_dir):
    (run_dir / "config.json").write_text(json.dumps(made_up_record(dataset="folder")))
    assert "benchmark ." not in page_of(report.write_report(run_dir)).text


def test_weights_free_method(run_dir):
    record = made_up_record(method="raw_color", weights=None, overrides={}, notes=[])
    (run_dir / "config.json").write_text(json.dumps(record))
    page = page_of(report.write_report(run_dir))
    assert "weights none" in page.text
    assert "benchmark" not in page.text.replace("preset benchmark", "")


def test_damaged_and_missing_files(run_dir, tmp_path):
    with pytest.raises(UserError, match="empty.*config.json: missing"):
        report.write_report(tmp_path / "empty")
    (run_dir / "metrics.json").write_text("{")
    with pytest.raises(UserError, match="metrics.json: not JSON"):
        report.write_report(run_dir)
    (run_dir / "metrics.json").write_text("[]")
    with pytest.raises(UserError, match="expected a JSON object, found list"):
        report.write_report(run_dir)


def test_index(run_dir, tmp_path):
    report.write_report(run_dir)
    rows = {"screw": METRICS, "<i>odd</i>": {**METRICS, "image_auroc": 0.5}}
    path = report.write_index(tmp_path, rows)
    assert path == tmp_path / "index.html"
    page = page_of(path)
    assert "PaDiM on mvtec_ad" in page.text
    assert page.links == ["screw/report.html"]
    assert "i" not in page.tags
    assert re.search(r"screw +\.778 +1\.000 +\.980 +- +\.900", page.text)
    assert re.search(r"average \(2 of 2\) +\.639 +1\.000 +\.980 +- +\.900", page.text)
    assert "weights & <b>more</b> (screw)" in page.text


def test_the_course_of_a_training_is_shown_where_it_was_kept(run_dir):
    assert "learning_curve.png" not in report.write_report(run_dir).read_text()
    Image.new("RGB", (30, 20)).save(run_dir / "learning_curve.png")
    page = report.write_report(run_dir).read_text()
    assert 'src="learning_curve.png" width="30" height="20"' in page
