// The words of the page: one file per language, with the same keys and placeholders.

import { el } from './dom.js';
import { user } from './telegram.js';

const LANGUAGES = { en: 'English', de: 'Deutsch' };

let texts = {};

/** The language that is shown. */
export let language = 'en';

/** The languages, by their tags. */
export const languages = Object.entries(LANGUAGES);

/** The language that the user's app has, or the browser. */
export function preferred() {
  const wanted = [user.language_code, ...navigator.languages];
  const known = wanted.map((tag) => String(tag ?? '').slice(0, 2).toLowerCase());
  return known.find((tag) => tag in LANGUAGES) ?? 'en';
}

/** Loads a language. */
export async function speak(tag) {
  texts = await read(new URL(`texts/${tag}.json`, import.meta.url));
  language = tag;
  document.documentElement.lang = tag;
}

/** Without words there is not even a failure to read: a few attempts. */
async function read(url, attempts = 4) {
  try {
    return await (await fetch(url)).json();
  } catch (error) {
    if (attempts === 1) throw error;
    await new Promise((resolve) => setTimeout(resolve, 800));
    return read(url, attempts - 1);
  }
}

/** Reports whether there is a text of this key. */
export function has(key) {
  return Object.hasOwn(texts, key);
}

/** The text of a key, with its placeholders filled. */
export function t(key, values = {}) {
  const text = texts[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ''));
}

/** The nodes of a text. Values are isolated: a name that is written from right to left leaves the
 * sentence around it as it is. */
export function rich(key, values = {}) {
  const parts = (texts[key] ?? key).split(/\{(\w+)\}/);
  return parts.map((part, at) => {
    if (at % 2 === 0) return part;
    const value = values[part] ?? '';
    return value instanceof Node ? value : el('bdi', {}, String(value));
  });
}
