// A button beside each command and piece of code that copies it. Without this script they are selected by hand.
"use strict";

async function copyText(pre) {
  const text = pre.querySelector("code").textContent;
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch { // no permission, or no HTTPS: as a person would do it
    getSelection().selectAllChildren(pre.querySelector("code"));
    return document.execCommand("copy");
  }
}

function offerCopy(pre) {
  if (!pre.querySelector("code") || pre.parentElement.classList.contains("copyable")) return;
  const box = document.createElement("div"), button = document.createElement("button");
  box.className = "copyable";
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  button.setAttribute("aria-live", "polite");
  button.addEventListener("click", async () => {
    button.textContent = await copyText(pre) ? "Copied" : "Press Ctrl-C";
    setTimeout(() => button.textContent = "Copy", 2000);
  });
  pre.replaceWith(box);
  box.append(pre, button);
}

function offerCopies(root) { root.querySelectorAll("pre").forEach(offerCopy); }

offerCopies(document);
