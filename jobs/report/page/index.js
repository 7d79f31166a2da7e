"use strict";
// Shows the entries that have all words of the search.

const search = document.getElementById("search");
const entries = [...document.querySelectorAll(".entry")];

function update() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const entry of entries) {
    const text = entry.textContent.toLowerCase();
    entry.hidden = !words.every((word) => text.includes(word));
  }
  const count = entries.filter((entry) => !entry.hidden).length;
  document.getElementById("shown").textContent = `${count} of ${entries.length}`;
}

search.addEventListener("input", update);
update();
