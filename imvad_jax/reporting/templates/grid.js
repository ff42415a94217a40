"use strict";
const table = document.getElementById("table");
const form = document.querySelector(".controls");
const original = [...table.tBodies];
const chosen = (name) => form.elements[name] && form.elements[name].value;

function update() {
  const metric = chosen("metric");
  const reference = chosen("reference") || Object.keys(AGAINST)[0];
  document.body.classList.toggle("all-metrics", !metric);
  for (const box of ["differences", "compare"]) {
    const input = form.elements[box];
    if (input) document.body.classList.toggle(box === "compare" ? box : "show-" + box, input.checked);
  }
  table.className = "grid by-" + reference;
  for (const row of table.querySelectorAll("tbody tr")) row.hidden = metric && row.dataset.metric !== metric;
  if (!reference) return;
  for (const cell of table.querySelectorAll("tr.ours td")) {
    const change = cell.dataset[reference];
    if (change === undefined) { cell.removeAttribute("style"); continue; }
    const strength = Math.min(Math.abs(change) / SCALES[reference], 1) * OPACITY;
    cell.style.setProperty("--tint", `rgba(${change > 0 ? BETTER : WORSE}, ${strength})`);
  }
  for (const end of document.querySelectorAll(".legend .end")) {
    end.textContent = (end.dataset.sign === "-" ? "\u2212" : "+") + SCALES[reference].toFixed(2);
  }
  document.querySelector(".legend .against").textContent = AGAINST[reference];
}

// A method's lines stay together; all five figures shown, the first one decides.
function key(body, column) {
  if (column === 0) return body.dataset.title;
  const row = body.querySelector("tr.ours:not([hidden])");
  const value = row.cells[column].dataset.value;
  return value === undefined ? null : Number(value);
}

function sort(heading) {
  const before = heading.getAttribute("aria-sort");
  const steps = heading.cellIndex ? ["descending", "ascending"] : ["ascending", "descending"];
  const next = before === steps[0] ? steps[1] : before === steps[1] ? null : steps[0];
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  let bodies = [...original];
  if (next) {
    heading.setAttribute("aria-sort", next);
    const sign = next === "ascending" ? 1 : -1;
    bodies.sort((a, b) => {
      const [one, two] = [key(a, heading.cellIndex), key(b, heading.cellIndex)];
      if (one === null || two === null) return (one === null) - (two === null);
      return sign * (one < two ? -1 : one > two ? 1 : 0);
    });
  }
  table.append(...bodies);
}

for (const heading of table.tHead.rows[0].cells) {
  const button = heading.querySelector("button");
  if (button) button.addEventListener("click", () => sort(heading));
}
form.addEventListener("change", () => {
  update();
  const sorted = table.querySelector("th[aria-sort]");
  if (sorted) {
    const direction = sorted.getAttribute("aria-sort");
    const first = sorted.cellIndex ? "descending" : "ascending";
    sorted.removeAttribute("aria-sort");
    sort(sorted);
    if (direction !== first) sort(sorted);
  }
});
form.hidden = false;
update();
