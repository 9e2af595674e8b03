import { defineConfig } from 'vitest/config';

export default defineConfig({
  // The folder works under any path of any static host.
  base: './',
  esbuild: { jsx: 'automatic', jsxImportSource: 'preact' },
  test: { include: ['test/**/*.test.ts'] },
  worker: { format: 'es' },
  build: {
    target: 'es2022',
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rollupOptions: {
      input: { index: 'index.html', 'stateway-lab': 'src/element.ts' },
      output: {
        // Pages of others name this one.
        entryFileNames: ({ name }) => (name === 'stateway-lab' ? '[name].js' : 'assets/[name]-[hash].js'),
      },
    },
  },
});
