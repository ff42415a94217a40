const at = (id) => document.getElementById(id);
const figures = [...document.querySelectorAll("#gallery figure")];
const slider = at("slider");

// As in evaluation/calibration.py: from the scale where 0.5 is the threshold back to the method's.
function rawScore(score) {
  const x = 2 * score - 1;
  return Math.abs(x) < 1 ? data.raw.threshold + data.raw.unit * x / (1 - Math.abs(x)) : null;
}

function apply(threshold) {
  const above = (scores) => scores.filter((score) => score > threshold).length;
  for (const count of document.querySelectorAll(".defective-count")) {
    count.textContent = above(data.scores);
  }
  at("flagged").textContent = above(data.references);
  at("threshold").textContent = threshold.toFixed(3);
  const raw = rawScore(threshold);
  at("raw").textContent = raw === null ? "-" : raw.toPrecision(5);
  at("cut").style.left = 100 * threshold + "%";
  for (const figure of figures) {
    figure.className = Number(figure.dataset.score) > threshold ? "defective" : "good";
  }
}

slider.addEventListener("input", () => apply(Number(slider.value)));
at("reset").addEventListener("click", () => { slider.value = data.threshold; apply(data.threshold); });
for (const button of document.querySelectorAll("#filter button")) {
  button.addEventListener("click", () => {
    at("gallery").classList.remove("only-good", "only-defective");
    if (button.dataset.show !== "all") at("gallery").classList.add("only-" + button.dataset.show);
    document.querySelector("#filter .chosen").classList.remove("chosen");
    button.classList.add("chosen");
  });
}
slider.value = data.threshold;  // a browser may remember another one
apply(data.threshold);
