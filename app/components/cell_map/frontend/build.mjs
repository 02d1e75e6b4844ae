// Bundles the map into dist/, which is committed: users need no Node. `npm ci && npm run build`
// gives the same bytes again, which a test checks. A folder as argument writes there instead.
import { build } from "esbuild";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const out = resolve(process.argv[2] ?? join(here, "dist"));

const banner = "/* Faultline, cell map. Licences of the packages inside: LICENSES.txt beside this file. */";
await build({
  absWorkingDir: here,
  entryPoints: { cell_map: "src/index.js", cell_answer: "src/answer.js", cell_map_style: "src/style.css" },
  outdir: out,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2020",
  charset: "utf8",
  legalComments: "none",
  banner: { js: banner, css: banner },
  logLevel: "warning",
});

// Packages come with parts of others inside, so all that they depend on are named.
const packages = new Set();
const waiting = Object.keys(JSON.parse(readFileSync(join(here, "package.json"), "utf8")).dependencies);
while (waiting.length > 0) {
  const name = waiting.pop();
  if (packages.has(name)) continue;
  packages.add(name);
  const file = join(here, "node_modules", name, "package.json");
  waiting.push(...Object.keys(JSON.parse(readFileSync(file, "utf8")).dependencies ?? {}));
}
const texts = [...packages].sort().map((name) => {
  const folder = join(here, "node_modules", name);
  const { version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const file = readdirSync(folder).find((entry) => /^licen[sc]e/i.test(entry));
  const text = file ? readFileSync(join(folder, file), "utf8").trim() : "(no licence file in the package)";
  return `${name} ${version} (${license})\n\n${text}\n`;
});
writeFileSync(join(out, "LICENSES.txt"), texts.join("\n----\n\n"));
