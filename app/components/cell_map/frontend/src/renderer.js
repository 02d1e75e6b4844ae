// One WebGL context for all maps of the tab: browsers allow only a few.
import { createRenderer } from "regl-scatterplot";

let renderer = null;
let users = 0;

export function hasWebgl() {
  const gl = document.createElement("canvas").getContext("webgl");
  const needed = ["OES_texture_float", "OES_element_index_uint", "WEBGL_color_buffer_float"];
  const works = Boolean(gl) && needed.every((name) => gl.getExtension(name));
  gl?.getExtension("WEBGL_lose_context")?.loseContext();
  return works;
}

export function borrow() {
  if (!renderer || renderer.isDestroyed) renderer = createRenderer();
  users += 1;
  return renderer;
}

export function giveBack() {
  users -= 1;
  if (users === 0) {
    renderer.destroy();
    renderer = null;
  }
}
