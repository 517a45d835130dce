"use strict";
(() => {
  // Sorting: numbers by value, text by language; undefined cells stay last in both directions.
  function sortBy(header) {
    const table = header.closest("table"), column = header.cellIndex, body = table.tBodies[0];
    const direction = header.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
    for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", direction);
    const sign = direction === "ascending" ? 1 : -1;
    const key = (row) => row.cells[column].dataset.key;
    const value = (text) => ({ "inf": Infinity, "-inf": -Infinity })[text] ?? Number(text);
    const rows = [...body.rows];
    const numeric = rows.every((row) => key(row) === "" || !Number.isNaN(value(key(row))));
    rows.sort((a, b) => {
      const x = key(a), y = key(b);
      if (x === "" || y === "") return (x === "") - (y === "");
      return sign * (numeric ? value(x) - value(y) : x.localeCompare(y, "en", { numeric: true }));
    });
    body.append(...rows);
  }
  document.addEventListener("click", (event) => {
    const button = event.target.closest("table.sortable th button");
    if (button) sortBy(button.closest("th"));
  });

  // The sparse model that the panels show.
  const model = document.getElementById("model");
  function showModel() {
    for (const panel of document.querySelectorAll(".panel")) panel.hidden = panel.dataset.model !== model.value;
  }
  model.addEventListener("change", showModel);
  showModel();

  // The gallery.
  const data = JSON.parse(document.getElementById("gallery-data").textContent);
  const select = (name) => document.getElementById(`gallery-${name}`);
  const fill = (name, options) => select(name).replaceChildren(...options.map(([value, text]) => new Option(text, value)));
  fill("attribute", data.attributes.map((name, i) => [i, name]));
  fill("model", data.models.map((name, i) => [i, name]));
  select("model").value = String(data.models.length - 1);
  fill("group", [["", "all"], ...data.groups.flatMap((group, g) =>
    group.levels.map((level, l) => [`${g},${l}`, `${group.name} = ${level}`]))]);
  const hasPie = data.entries.some((entry) => entry[9]);
  fill("kind", [["", "all kinds"], ["flip", "changed decisions"], ...(hasPie ? [["pie", "PIE only"]] : [])]);
  fill("order", [["moved", "largest change first"], ["random", "random (fixed)"]]);

  function element(name, text, css) {
    const made = document.createElement(name);
    if (text) made.textContent = text;
    if (css) made.className = css;
    return made;
  }
  function card(entry) {
    const [m, , sample, section, label, pDense, pSparse, votesDense, votesSparse, isPie] = entry;
    const [id, levels] = data.samples[sample], [dense, sparse] = data.runs[m];
    const made = element("li", "", section < 2 || (section >= 4 && section < 6) ? "card wrong" : "card");
    if (data.images[sample]) {
      const image = element("img");
      image.src = data.images[sample];
      image.alt = `sample ${id}`;
      made.append(image);
    }
    made.append(element("b", `${id}${isPie ? " · PIE" : ""}`));
    made.append(element("div", `label ${label}`));
    made.append(element("div", `p ${pDense.toFixed(3)} → ${pSparse.toFixed(3)}`));
    if (dense > 1 || sparse > 1) made.append(element("div", `votes ${votesDense}/${dense} → ${votesSparse}/${sparse}`));
    const groups = data.groups.map((group, g) => `${group.name} ${group.levels[levels[g]]}`).join(", ");
    if (groups) made.append(element("div", groups));
    return made;
  }
  function showGallery() {
    const [g, level] = select("group").value.split(",").map(Number), anyGroup = select("group").value === "";
    const kind = select("kind").value, random = select("order").value === "random";
    const shown = data.entries.filter((entry) =>
      entry[0] === Number(select("model").value) && entry[1] === Number(select("attribute").value) &&
      (anyGroup || data.samples[entry[2]][1][g] === level) &&
      (kind !== "flip" || entry[3] < 4) && (kind !== "pie" || entry[9]));
    if (random) shown.sort((a, b) => a[10] - b[10]);
    const parts = [];
    for (let section = 0; section < 2 * data.outcomes.length; section += 1) {
      const cards = shown.filter((entry) => entry[3] === section).map(card);
      if (!cards.length) continue;
      const confidence = section % 2 ? "dense model uncertain" : "dense model confident";
      const list = element("ul", "", "cards");
      list.append(...cards);
      parts.push(element("h3", `${data.outcomes[section >> 1]}, ${confidence} (${cards.length} shown)`), list);
    }
    document.getElementById("gallery-cards").replaceChildren(...parts);
    document.getElementById("gallery-count").textContent = `${shown.length} samples shown`;
  }
  document.getElementById("gallery-controls").addEventListener("change", showGallery);
  document.getElementById("gallery-controls").addEventListener("submit", (event) => event.preventDefault());
  showGallery();
})();
