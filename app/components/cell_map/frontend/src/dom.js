// Builds elements. Text is always set as text: labels come from files of strangers.
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined) node.setAttribute(name, String(value));
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

export const count = (n) => n.toLocaleString("en-US");

export const reducesMotion = () => window.matchMedia("(prefers-reduced-motion: reduce)").matches;
