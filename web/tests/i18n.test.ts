import { describe, expect, it } from 'vitest';
import { chooseLanguage, formatBytes, initialLanguage, t } from '../src/i18n';
import { en } from '../src/i18n/en';
import { zh } from '../src/i18n/zh';
import { REPLACED, TEXTS } from '../src/phone/texts';

const values = (text: string | undefined) => (text?.match(/\{\w+\}/g) ?? []).sort();

describe('languages', () => {
  it.each(Object.keys(en) as (keyof typeof en)[])('put the same values into %s', (key) => {
    expect(values(zh[key])).toEqual(values(en[key]));
  });

  it.each(Object.keys(TEXTS.en) as (keyof typeof TEXTS.en)[])('put the same values into %s', (key) => {
    expect(values(TEXTS.zh[key])).toEqual(values(TEXTS.en[key]));
  });

  it('have other words on the phone for the same texts', () => {
    expect(Object.keys(REPLACED.zh)).toEqual(Object.keys(REPLACED.en));
    for (const [key, text] of Object.entries(REPLACED.zh))
      expect(values(text)).toEqual(values(zh[key as keyof typeof zh]));
  });

  it.each([
    [null, ['zh-TW', 'en'], 'zh'],
    [null, ['de-DE', 'zh-CN'], 'zh'],
    [null, ['fr'], 'en'],
    ['en', ['zh'], 'en'],
    ['xx', ['zh'], 'zh'],
  ])('choose by %s and %s', (choice, preferred, expected) => {
    expect(initialLanguage(choice, preferred)).toBe(expected);
  });

  it('change what is said', () => {
    chooseLanguage('zh');
    expect(t('contextUsed', { used: 1, total: 2 })).toBe('1 / 2 词元');
    chooseLanguage('en');
    expect(t('contextUsed', { used: 1, total: 2 })).toBe('1 / 2 tokens');
  });

  it('write bytes as people read them', () => {
    expect([0, 1023, 1536, 200 * 2 ** 20, 3 * 2 ** 30].map(formatBytes)).toEqual([
      '0 B',
      '1,023 B',
      '1.5 KiB',
      '200 MiB',
      '3.0 GiB',
    ]);
  });
});
