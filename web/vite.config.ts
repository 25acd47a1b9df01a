import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

// The page's server allows no inline script, no inline style and no data: URL, so nothing may be inlined. The same
// files must give the same bytes on each machine: the names of classes come from the text of their styles, and not
// from paths.
export default defineConfig({
  plugins: [svelte({ compilerOptions: { cssHash: ({ hash, css }) => `s${hash(css)}` } })],
  build: {
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    license: { fileName: "licenses.md" }, // those of the libraries that are in the page
  },
});
