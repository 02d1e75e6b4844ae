// Shows what the server says of the cell under the pointer, as a line of text, and hands it to the
// map, which shows it at the pointer.
export default function answer({ data, parentElement }) {
  let line = parentElement.querySelector("p");
  if (!line) {
    line = document.createElement("p");
    line.setAttribute("role", "status");
    line.dir = "auto";
    parentElement.append(line);
  }
  line.textContent = data?.text ?? "";
  if (data?.map) window.dispatchEvent(new CustomEvent("faultline:cell", { detail: data }));
}
