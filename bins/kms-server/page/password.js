// Passwords: their text, their hash, and how good a new one is. As kms-client does it: "Password
// text" and "Password hash" in FORMAT.md of kms-core.

const LABEL = 'wallet-kms/v1/password-hash:';
const ROUNDS = 600_000;

/** The fewest and the most characters of a new password. */
export const MIN_LENGTH = 10;
export const MAX_LENGTH = 128;

/** What Telegram's apps change in a text: as `is_rewritten` of kms-client. */
const MARKS = ['**', '__', '~~', '||', '`'];
const TRIGGERS = [
  ':-)', '8-)', '<3', ':-*', 'B-)', ':-D', ';-)', ';-P', ':-p', '3(', ':-(', ':]', ":'(", ':_(',
  ':((', ':|', '3-)', '>(', 'O:)', ';o', '8|', '8o', ':X', '}:)', 'xD ',
];
const EMOTICONS = [':)', ':(', ';)', ':D', ':P', ':-P', ':p', ':*', ':o', ':O', ':/', 'B)'];

/** How many words a phrase has: 77 bits. */
const WORDS = 6;

const INVISIBLE =
  /[\u{ad}\u{200b}-\u{200f}\u{202a}-\u{202e}\u{2060}-\u{2064}\u{2066}-\u{206f}\u{feff}\u{fe00}-\u{fe0f}]/gu;
const ASCII = [
  [/[\u{b4}\u{2b9}\u{2bb}-\u{2bd}\u{1ffd}\u{2018}-\u{201b}\u{2032}\u{2035}]/gu, "'"],
  [/[\u{2ba}\u{201c}-\u{201f}\u{2033}\u{2036}]/gu, '"'],
  [/\u{ab}/gu, '<<'],
  [/\u{bb}/gu, '>>'],
  [/[\u{2010}-\u{2015}\u{2212}\u{2e3a}\u{2e3b}\u{fe31}\u{fe32}\u{fe58}]/gu, '-'],
];

/** The years that the estimator, which is of 2017, does not know yet. */
const YEARS = Array.from({ length: 20 }, (_, at) => String(2018 + at));

/** Characters that another version of Unicode may normalize differently. */
const UNASSIGNED = /[\p{Cn}\p{Cs}]/u;

/** The text of a password, whichever keyboard typed it. */
export function fold(password) {
  // Not trim(): it removes U+FEFF and leaves U+0085, and Rust does the reverse.
  return straighten(straighten(password.replace(INVISIBLE, '')).normalize('NFKC'))
    .replace(/\p{White_Space}+/gu, ' ')
    .replace(/^ | $/g, '')
    .replace(/-+/g, '-');
}

function straighten(text) {
  return ASCII.reduce((straight, [from, to]) => straight.replace(from, to), text);
}

/** Reports whether an app of Telegram's may change a password that is typed in the chat. */
export function isRewritten(password) {
  const text = fold(password);
  const names = text.split(':').slice(1, -1);
  return MARKS.some((mark) => text.split(mark).length > 2)
    || TRIGGERS.some((trigger) => isTriggered(text, trigger))
    || text.split(' ').some((word) => EMOTICONS.includes(word))
    || names.some((name) => /^[a-z0-9_+-]+$/i.test(name));
}

function isTriggered(text, trigger) {
  const inWord = (at) => /^\p{Alphabetic}/u.test(trigger)
    && /[\p{Alphabetic}\p{N}]$/u.test(text.slice(0, at));
  for (let at = text.indexOf(trigger); at >= 0; at = text.indexOf(trigger, at + 1)) {
    if (!inWord(at)) return true;
  }
  return false;
}

/** Stretches a password: the server never sees it. */
export async function hash(telegramId, password) {
  const text = new TextEncoder().encode(fold(password));
  const key = await crypto.subtle.importKey('raw', text, 'PBKDF2', false, ['deriveBits']);
  text.fill(0);
  const salt = new TextEncoder().encode(LABEL + telegramId);
  const how = { name: 'PBKDF2', hash: 'SHA-256', salt, iterations: ROUNDS };
  const bytes = new Uint8Array(await crypto.subtle.deriveBits(how, key, 256));
  const digits = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  bytes.fill(0);
  return `v1.${digits}`;
}

/** Makes a phrase of six words, each as likely as any other. */
export async function phrase() {
  const answer = await fetch(new URL('vendor/words.json', import.meta.url));
  const words = await answer.json();
  const fair = 65_536 - (65_536 % words.length);
  const chosen = [];
  while (chosen.length < WORDS) {
    const [random] = crypto.getRandomValues(new Uint16Array(1));
    if (random < fair) chosen.push(words[random % words.length]);
  }
  return chosen.join(' ');
}

let estimator;

/** Loads the estimator of strength, which is large: only for passwords of the user's own. */
export async function prepare() {
  estimator ??= import('./vendor/zxcvbn.js');
  try {
    await estimator;
  } catch (error) {
    estimator = undefined;
    throw error;
  }
}

/** Why a new password is refused: the key of a text, or null if it is good. `known` are the names
 * that an attacker knows of the user. */
export async function weakness(password, known) {
  if (UNASSIGNED.test(password)) return 'password.unassigned';
  if (isRewritten(password)) return 'password.unstable';
  const text = fold(password);
  const length = [...text].length;
  if (length < MIN_LENGTH) return 'password.short';
  if (length > MAX_LENGTH) return 'password.long';
  await prepare();
  const names = namesWithParts(known);
  // Without the names too: the estimator counts the order of known words for much.
  const isStrong = (part) => strength(part, names) >= 3;
  return isStrong(text) && isStrong(withoutNames(text, names)) ? null : 'password.guessable';
}

/** How strong a text is, from 0 to 4, once the estimator is loaded. */
export function strength(text, names) {
  return window.zxcvbn(text, [...names, ...YEARS]).score;
}

/** Names, and the parts of those that have several. */
export function namesWithParts(names) {
  return names.flatMap((name) => [name, ...name.split(/[ _-]/)]).filter(Boolean);
}

function withoutNames(text, names) {
  const known = names.map((name) => fold(name.toLowerCase())).filter((name) => [...name].length > 2);
  known.sort((a, b) => b.length - a.length);
  return known.reduce((rest, name) => rest.replaceAll(name, ''), text.toLowerCase());
}
