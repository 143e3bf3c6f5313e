import { defineConfig } from 'vite';

// The page runs under `default-src 'none'`: no data: assets, no inline preload script. Addresses are relative,
// so that the same files work behind any path and from inside the Android app.
export default defineConfig({
  base: './',
  build: {
    target: ['chrome104', 'firefox115', 'safari16'],
    assetsInlineLimit: 0,
    modulePreload: false,
    sourcemap: false,
    reportCompressedSize: true,
  },
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
  server: { proxy: { '/v1': process.env.POCKETGLM_SERVER ?? 'http://127.0.0.1:8000' } },
});
