// Headings of tables sort them: by mouse, by Enter and by Space, as buttons do.
document.documentElement.classList.add("scripted");

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];

  const key = (row, column) => {
    const cell = row.cells[column];
    if (!cell || cell.colSpan > 1) return null;
    const text = cell.dataset.key;
    if (text === "") return null;
    return text === undefined || text !== text.trim() || isNaN(text) ? text : Number(text);
  };

  const compare = (one, other) =>
    typeof one === "number" && typeof other === "number" ? one - other : String(one).localeCompare(String(other));

  const sort = (column, falling) => {
    const rows = [...body.rows].map((row) => ({ row, value: key(row, column) }));
    const known = rows.filter(({ value }) => value !== null);
    const rest = rows.filter(({ value }) => value === null); // nothing to sort by: always last
    known.sort((one, other) => (falling ? -1 : 1) * compare(one.value, other.value));
    body.append(...known.concat(rest).map(({ row }) => row));
    heads.forEach((head, place) =>
      head.setAttribute("aria-sort", place !== column ? "none" : falling ? "descending" : "ascending"));
  };

  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    button?.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      sort(column, now === "none" ? button.dataset.first === "falling" : now === "ascending");
    });
  });
}
