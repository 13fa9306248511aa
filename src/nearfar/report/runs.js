"use strict";
// A table whose columns sort by their headings. Cells carry by what they are sorted; empty ones stay last.

const table = document.querySelector("table.sorted");
const body = table.tBodies[0];
const first = [...body.rows]; // the order in which they came, which a tie keeps
const told = document.querySelector(".told");

const keyOf = (row, i) => row.cells[i].dataset.key;

function order(heading, descends) {
  const i = heading.cellIndex;
  const numeric = heading.classList.contains("number");
  const compare = (a, b) => {
    const [x, y] = [keyOf(a, i), keyOf(b, i)];
    if (x === "" || y === "") return (x === "") - (y === "");
    const less = numeric ? Number(x) - Number(y) : x.localeCompare(y, undefined, { numeric: true });
    return descends ? -less : less;
  };
  body.append(...[...first].sort(compare));
  for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
  heading.setAttribute("aria-sort", descends ? "descending" : "ascending");
  told.textContent = `Sorted by ${heading.textContent.trim()}, ${descends ? "highest" : "lowest"} first.`;
}

for (const heading of table.tHead.rows[0].cells) {
  heading.querySelector("button").onclick = () => {
    const before = heading.getAttribute("aria-sort");
    // Of numbers the highest are looked for first.
    const descends = before === "none" ? heading.classList.contains("number") : before === "ascending";
    order(heading, descends);
  };
}
