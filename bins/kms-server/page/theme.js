// Telegram's colours, where they can be read: the page asks for a contrast of 4.5:1.

import { on, send, theme } from './telegram.js';

const READABLE = 4.5;
const root = document.documentElement;
const dark = matchMedia('(prefers-color-scheme: dark)');

/** Takes Telegram's colours, and follows their changes. */
export function applyTheme() {
  apply(theme);
  dark.addEventListener('change', () => apply(theme));
  on('theme_changed', ({ theme_params: changed }) => {
    Object.assign(theme, changed);
    apply(theme);
  });
}

function apply(given) {
  const bg = color(given.bg_color);
  const isDark = bg ? luminance(bg) < 0.2 : dark.matches;
  root.dataset.scheme = isDark ? 'dark' : 'light';
  for (const name of ['card', 'page', 'text', 'hint', 'accent', 'accent-text', 'link']) {
    root.style.removeProperty(`--${name}`);
  }
  if (!bg) return;
  const page = color(given.secondary_bg_color) ?? bg;
  const text = color(given.text_color);
  if (!text || !areReadable(text, bg, page)) return;
  set('card', bg);
  set('page', page);
  set('text', text);
  setReadable('hint', [given.subtitle_text_color, given.hint_color, own('hint'), text], bg, page);
  setReadable('link', [given.link_color, given.accent_text_color, own('link'), text], bg, page);
  const [button, label] = [color(given.button_color), color(given.button_text_color)];
  if (button && label && areReadable(label, button)) {
    set('accent', button);
    set('accent-text', label);
  }
  send('web_app_set_header_color', { color: page });
  send('web_app_set_background_color', { color: page });
}

/** The page's own colour. */
function own(name) {
  return getComputedStyle(root).getPropertyValue(`--${name}`).trim();
}

/** Takes the first of these colours that can be read. */
function setReadable(name, colors, ...backs) {
  set(name, colors.map(color).find((front) => front && areReadable(front, ...backs)));
}

function set(name, value) {
  root.style.setProperty(`--${name}`, value);
}

function color(text) {
  return /^#[0-9a-f]{6}$/i.test(text ?? '') ? text : undefined;
}

function areReadable(front, ...backs) {
  return backs.every((back) => {
    const [low, high] = [luminance(front), luminance(back)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05) >= READABLE;
  });
}

/** The relative luminance of WCAG 2. */
function luminance(hex) {
  const [r, g, b] = [1, 3, 5].map((at) => {
    const part = parseInt(hex.slice(at, at + 2), 16) / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
