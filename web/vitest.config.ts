import { defineConfig } from 'vitest/config';

// Five seconds, the default, are too few for the longest texts on a busy machine.
const tests = { environment: 'jsdom', include: ['tests/**/*.test.ts'], testTimeout: 60_000 };

export default defineConfig({ test: tests });
