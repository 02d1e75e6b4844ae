"""A button that copies the address of the page, in the browser alone."""

from __future__ import annotations

from typing import Final

import streamlit as st

__all__ = ["copy_link"]

_HTML: Final = """
<div>
  <button type="button">Copy link</button>
  <input type="text" readonly hidden aria-label="Link to this view" />
  <span role="status"></span>
</div>
"""

_CSS: Final = """
div { display: flex; flex-wrap: wrap; align-items: center; gap: 0.5rem; justify-content: flex-end; }
button, input {
  font: 14px/1.4 var(--st-font, sans-serif); color: var(--st-text-color);
  background: transparent; border: 1px solid var(--st-border-color, #8888);
  border-radius: 0.5rem; padding: 0.25rem 0.75rem; max-width: 100%; box-sizing: border-box;
}
input { width: 16rem; }
input[hidden] { display: none; }
button { cursor: pointer; white-space: nowrap; min-width: 6rem; }
button:hover { border-color: var(--st-primary-color); color: var(--st-primary-color); }
:is(button, input):focus-visible { outline: 2px solid var(--st-primary-color); outline-offset: 1px; }
span { font: 13px/1.4 var(--st-font, sans-serif); color: var(--st-text-color); }
span:empty { display: none; }
span.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
"""

# Only a page over HTTPS or on this machine may write to the clipboard, and a browser may refuse it
# there, too: then the link is shown, selected, to be copied by hand.
_JS: Final = """
export default function ({ parentElement }) {
  const [button, field, said] = ["button", "input", "span"].map((name) =>
    parentElement.querySelector(name));
  let waiting;
  button.onclick = async () => {
    const link = window.location.href;
    let isCopied = false;
    try {
      await navigator.clipboard.writeText(link);
      isCopied = true;
    } catch {
      field.value = link;
    }
    field.hidden = isCopied;
    if (!isCopied) {
      field.focus();
      field.select();
    }
    // Seen on the button, so that nothing beside it moves; heard from the status.
    said.classList.toggle("unseen", isCopied);
    said.textContent = isCopied ? "Copied" : "Press Ctrl+C (Mac: ⌘C)";
    if (isCopied) button.textContent = "Copied";
    clearTimeout(waiting);
    waiting = setTimeout(() => { button.textContent = "Copy link"; }, 2500);
  };
  return () => { clearTimeout(waiting); button.onclick = null; };
}
"""

_copy_link = st.components.v2.component("faultline_copy_link", html=_HTML, css=_CSS, js=_JS)


def copy_link() -> None:
    """Draw a button that copies the page's address, or shows it selected where that is refused."""
    _copy_link(key="copy_link", height="content", width="content")
