import { defineConfig, type Plugin } from 'vite';

// The page runs under `default-src 'none'`: no data: assets, no inline preload script. Addresses are relative,
// so that the same files work behind any path and from inside the Android app.
const phone: Plugin = {
  name: 'phone',
  transformIndexHtml: {
    order: 'pre',
    handler: (html) => html.replace('/src/main.tsx', '/src/phone/main.tsx'),
  },
};

// `--mode phone` makes the page of the Android app: another entry, the same page.
export default defineConfig(({ mode }) => ({
  plugins: mode === 'phone' ? [phone] : [],
  worker: { format: 'es' },
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
}));
