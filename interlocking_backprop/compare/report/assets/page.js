"use strict";
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...body.rows].map((row) => [row.cells[column].dataset.value, row.cells[column].textContent, row]);
      rows.sort(([a, s], [b, t]) => {
        // What has no number stays at the end.
        if ((a === undefined) !== (b === undefined)) return a === undefined ? 1 : -1;
        const order = a === undefined ? s.localeCompare(t) : Number(a) - Number(b);
        return down ? -order : order;
      });
      body.append(...rows.map(([, , row]) => row));
    });
  });
}
