// Entry for Streamlit: called when the map appears and each time its message changes.
import { CellMap } from "./map.js";

const maps = new WeakMap();

export default function cellMap({ data, parentElement, setTriggerValue }) {
  let map = maps.get(parentElement);
  if (!map) {
    map = new CellMap(parentElement, (event) => map.trigger("event", event));
    maps.set(parentElement, map);
  }
  map.trigger = setTriggerValue;
  if (data) map.receive(data);
  return () => {
    maps.delete(parentElement);
    map.destroy();
  };
}
