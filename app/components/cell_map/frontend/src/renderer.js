// One WebGL context for all maps of the tab: browsers allow only a few.
import createRegl from "regl";
import { createRenderer } from "regl-scatterplot";

const NEEDED = ["OES_texture_float", "OES_element_index_uint", "WEBGL_color_buffer_float"];

let renderer = null;
let users = 0;
let width = 0;
let height = 0;

// The library prepares what draws its reticle, lasso, lines, annotations and selected points, none of
// which is used here. Without a graphics card their programs take longer to compile than the points
// to draw: here a program is compiled when it first draws.
function lazy(regl) {
  const prepare = (options) => {
    let command = null;
    return function (...given) {
      command ??= regl(options);
      return command.apply(this, given);
    };
  };
  return Object.assign(prepare, regl);
}

function make() {
  const canvas = document.createElement("canvas");
  // Nothing but points is drawn, which their shader smooths: several samples a pixel only cost time.
  const gl = canvas.getContext("webgl", { antialias: false, preserveDrawingBuffer: true });
  if (!gl || !NEEDED.every((name) => gl.getExtension(name))) return null;
  width = height = 0;
  try {
    return createRenderer({ canvas, regl: lazy(createRegl({ gl, extensions: NEEDED })) });
  } catch (error) {
    // The library makes functions from text, which a strict security policy forbids.
    if (error instanceof EvalError) return null;
    throw error;
  }
}

export function hasWebgl() {
  renderer ??= make();
  return renderer !== null;
}

// Returns the renderer, large enough for a panel: each frame costs its whole area.
export function borrow(forWidth, forHeight) {
  renderer ??= make();
  users += 1;
  fit(forWidth, forHeight);
  return renderer;
}

export function fit(forWidth, forHeight) {
  if (forWidth <= width && forHeight <= height) return;
  width = Math.max(width, forWidth);
  height = Math.max(height, forHeight);
  renderer.resize(width, height);
  renderer.refresh();
}

export function giveBack() {
  users -= 1;
  if (users > 0) return;
  renderer.destroy();
  renderer = null;
}
