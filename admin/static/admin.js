// What makes the admin's pages quicker to use. Every page works without it.
"use strict";

(() => {
  const make = (tag, props) => Object.assign(document.createElement(tag), props);
  const button = (text, label, act) => {
    const b = make("button", { type: "button", className: "shortcut", textContent: text });
    b.setAttribute("aria-label", label);
    b.addEventListener("click", act);
    return b;
  };

  // Today and Now: the server's times are UTC, so these are too.
  const moments = (root) => {
    for (const [selector, text, from, to] of [[".vDateField", "Today", 0, 10], [".vTimeField", "Now", 11, 19]]) {
      for (const input of root.querySelectorAll(selector)) {
        input.closest("label").after(button(text, text + " (UTC)", () => {
          input.value = new Date().toISOString().slice(from, to);
          input.dispatchEvent(new Event("input", { bubbles: true }));
        }));
      }
    }
  };

  // Add another: a copy of the template, with the next number.
  const inlines = (group) => {
    const template = group.querySelector("template");
    if (!template) return;
    const total = group.querySelector("[name$='-TOTAL_FORMS']");
    const rows = group.querySelector(".rows");
    const name = group.dataset.name;
    const add = () => {
      const n = Number(total.value);
      const holder = make("div", { innerHTML: template.innerHTML.replaceAll("__prefix__", n).replaceAll("__number__", n + 1) });
      const row = holder.firstElementChild;
      row.querySelector(".cells").append(button("Remove", "Remove new " + name + " " + (n + 1), () => {
        for (const input of row.querySelectorAll("input:not([type=hidden])")) input.value = input.type === "number" ? input.defaultValue : "";
        row.classList.add("removed"); // left blank, so that the server ignores it and the numbers stay
        another.focus();
      }));
      rows.append(row);
      total.value = n + 1;
      row.querySelector("input:not([type=hidden])").focus();
    };
    const another = make("button", { type: "button", className: "add-row", textContent: "Add another " + name[0].toUpperCase() + name.slice(1) });
    another.addEventListener("click", add);
    group.append(another);
  };

  // Select all, shift for a range, and how many are selected.
  const selection = (form) => {
    const boxes = [...form.querySelectorAll(".action-select")];
    const all = form.querySelector("#action-toggle");
    const counter = form.querySelector(".counter");
    if (!boxes.length || !all) return;
    const across = form.querySelector(".across");
    let last = null;
    const count = () => {
      const n = boxes.filter((b) => b.checked).length;
      all.checked = n === boxes.length;
      all.indeterminate = n > 0 && !all.checked;
      if (across) {
        across.hidden = !all.checked;
        if (!all.checked) across.firstElementChild.checked = false;
      }
      counter.textContent = n + " of " + boxes.length + " selected";
    };
    all.hidden = false;
    all.addEventListener("change", () => { for (const b of boxes) b.checked = all.checked; count(); });
    for (const box of boxes) {
      box.addEventListener("click", (event) => {
        if (event.shiftKey && last) {
          const [from, to] = [boxes.indexOf(last), boxes.indexOf(box)].sort((a, b) => a - b);
          for (const b of boxes.slice(from, to + 1)) b.checked = box.checked;
        }
        last = box;
        count();
      });
    }
    count();
  };

  // Unsaved changes: the browser asks before it leaves the page.
  const unsaved = (form) => {
    const state = () => new URLSearchParams(new FormData(form)).toString();
    const saved = "unsaved" in form.dataset ? null : state();
    let sending = false;
    form.addEventListener("submit", () => { sending = true; });
    addEventListener("pageshow", () => { sending = false; });
    addEventListener("beforeunload", (event) => { if (!sending && state() !== saved) event.preventDefault(); });
  };

  moments(document);
  for (const group of document.querySelectorAll(".inline-group")) inlines(group);
  for (const form of document.querySelectorAll("#changelist-form")) selection(form);
  for (const form of document.querySelectorAll("form[data-warn]")) unsaved(form);
  const problem = document.querySelector('[aria-invalid="true"]');
  if (problem) problem.focus();
})();
