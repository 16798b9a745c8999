"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const at = id => document.getElementById(id);
const make = (tag, text, name) => {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (name) node.className = name;
  return node;
};
const fixed = (value, places = 2) => value === null ? "-" : value.toFixed(places);

function table(id, head, rows) {
  const node = at(id);
  const draw = list => {
    node.replaceChildren();
    const top = node.createTHead().insertRow();
    head.forEach((name, column) => {
      const cell = make("th", name);
      cell.onclick = () => draw([...list].sort((a, b) => a[column] < b[column] ? 1 : a[column] > b[column] ? -1 : 0));
      top.append(cell);
    });
    const body = node.createTBody();
    for (const row of list) {
      const line = body.insertRow();
      for (const value of row) line.insertCell().textContent = Number.isInteger(value) || typeof value !== "number" ? value : fixed(value);
    }
  };
  draw(rows);
}

function aligned(edits) {
  const words = make("div", undefined, "words");
  for (const [kind, ref, hyp] of edits) {
    const word = make("span", undefined, kind);
    word.append(make("span", ref || "\u00a0"), make("span", (kind === "C" ? hyp ?? ref : hyp) || "\u00a0"));
    words.append(word);
  }
  return words;
}
