// The parts that screens are made of.

import { Lost, Problem } from './api.js';
import { announce, el, meta } from './dom.js';
import { amount, groups, native, time, until } from './format.js';
import * as password from './password.js';
import { isShown, send } from './telegram.js';
import { has, language, languages, rich, t } from './texts.js';

let ids = 0;

function newId() {
  ids += 1;
  return `part-${ids}`;
}

/** A card with a heading of its own. */
export function card(title, ...children) {
  const id = newId();
  return el('section', { class: 'card', 'aria-labelledby': id }, el('h2', { id }, title), children);
}

/** A card whose heading would say what its form says. */
export function plainCard(...children) {
  return el('div', { class: 'card' }, children);
}

/** A note that stands out. `kind`: `good`, `warning` or `danger`. */
export function note(kind, ...children) {
  return el('div', { class: `note ${kind}` }, children);
}

/** A list of terms and their values. */
export function facts(rows) {
  const shown = rows.filter(Boolean);
  return el('dl', { class: 'facts' }, shown.map(([name, value]) =>
    el('div', {}, el('dt', {}, name), el('dd', {}, value))));
}

/** An address, whole. */
export function address(text) {
  return el('span', { class: 'address', dir: 'ltr', translate: 'no' }, groups(text));
}

/** A button that copies a text. */
export function copyButton(text, label) {
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      copyBySelection(text);
    }
    button.textContent = t('copied');
    announce(t('copied'));
    setTimeout(() => (button.textContent = label), 2_000);
  };
  const button = el('button', { type: 'button', class: 'quiet', on: { click: copy } }, label);
  return button;
}

/** Frames without the permission to write the clipboard can still copy a selection. */
function copyBySelection(text) {
  const area = el('textarea', { class: 'unseen', 'aria-hidden': 'true', readonly: true }, text);
  document.body.append(area);
  area.select();
  document.execCommand('copy');
  area.remove();
}

/** A link that opens this page for another purpose. Without a known link, what to do instead. */
export function linkTo(purpose, label, style = 'button') {
  const app = meta('app');
  if (!app) return el('p', { class: 'hint' }, rich('reopen', { what: label }));
  const href = purpose ? `${app}?startapp=${purpose}` : app;
  const open = (event) => {
    if (!isShown()) return;
    event.preventDefault();
    send('web_app_open_tg_link', { path_full: href.replace('https://t.me', '') });
  };
  return el('a', { class: style, href, on: { click: open } }, label);
}

/** Goes back to the chat. */
export function closeButton(label = t('close')) {
  if (!isShown()) return null;
  const close = () => send('web_app_close');
  return el('button', { type: 'button', class: 'quiet', on: { click: close } }, label);
}

/** Buttons for the languages. */
export function languageSwitch(change) {
  return el('nav', { class: 'languages', 'aria-label': t('languages') }, languages.map(([tag, name]) =>
    el('button', {
      type: 'button', class: 'plain', lang: tag, 'aria-pressed': String(tag === language),
      on: { click: () => change(tag) },
    }, name)));
}

/** The sign that only the real page shows. */
export function sign(account) {
  if (!account?.sign) return null;
  const words = account.sign;
  return el('p', { class: 'sign' }, el('span', { class: 'emoji', translate: 'no' }, words), ' ', t('sign.yours'));
}

/** What the server's refusal means for a person, and what to do next. */
export function failure(error, network) {
  if (error instanceof Lost) return t('error.lost');
  if (!(error instanceof Problem)) return t('error.unknown');
  const key = has(`error.${error.code}`) ? `error.${error.code}` : 'error.unknown';
  const sentences = [t(key)];
  if (error.limit && network) {
    const asset = error.limit.token ?? native(network);
    sentences.push(t('error.limit.left', { left: amount(error.limit.left, asset) }));
  }
  if (error.missing && network) {
    sentences.push(t('error.missing', { missing: amount(error.missing, native(network)) }));
  }
  if (error.missing_token) {
    const { token, units } = error.missing_token;
    sentences.push(t('error.missing', { missing: amount(units, token) }));
  }
  if (error.retry_after > 1) sentences.push(t('error.after', { when: until(error.retry_after) }));
  return sentences.join(' ');
}

/** A failure with what an operator needs to find its cause. */
export function failureCard(error, network) {
  const id = error.request_id;
  return el('div', { class: 'note danger', role: 'alert' },
    el('p', {}, failure(error, network)),
    id && error.status >= 500 && el('p', { class: 'hint' }, t('error.id'), ' ', el('code', {}, id)));
}

/**
 * A form whose button works while the answer is awaited. `fields` are its parts; each may have
 * `check()`, which shows what is wrong with it and returns whether it is fine, and `refused(error)`,
 * which shows a refusal that concerns it and returns whether it did. Whatever else `run` throws is
 * shown above the button.
 */
export function form({ fields, label, danger = false, network, run }) {
  const problem = el('div', { class: 'problem', 'aria-live': 'assertive' });
  const button = el('button', { type: 'submit', class: danger ? 'danger' : null }, label);
  let isBusy = false;
  const submit = async (event) => {
    event.preventDefault();
    if (isBusy) return;
    problem.replaceChildren();
    for (const field of fields) {
      if (field.check && !(await field.check())) return;
    }
    isBusy = true;
    button.setAttribute('aria-disabled', 'true');
    button.replaceChildren(el('span', { class: 'spinner small' }), t('working'));
    send('web_app_setup_closing_behavior', { need_confirmation: true });
    try {
      await run();
    } catch (error) {
      // Said at the field that it is about, or here.
      const isSaid = fields.some((field) => field.refused?.(error));
      if (!isSaid) problem.replaceChildren(failureCard(error, network));
    } finally {
      send('web_app_setup_closing_behavior', { need_confirmation: false });
      isBusy = false;
      button.removeAttribute('aria-disabled');
      button.replaceChildren(label);
    }
  };
  const parts = fields.map((field) => field.node ?? field);
  return el('form', { novalidate: true, on: { submit } }, parts, problem, button);
}

/** A field of a form, with its label, a hint and a place for what is wrong with it. */
export function field({ label, hint, value = '', trouble = () => null, type = 'text', ...rest }) {
  const [id, hintId, errorId] = [newId(), newId(), newId()];
  const wrong = el('p', { id: errorId, class: 'wrong', 'aria-live': 'polite' });
  const input = el('input', {
    id, type, 'aria-describedby': `${hint ? `${hintId} ` : ''}${errorId}`, autocomplete: 'off',
    autocapitalize: 'none', spellcheck: 'false', value, ...rest,
  });
  const say = (text) => {
    wrong.textContent = text ?? '';
    input.toggleAttribute('aria-invalid', Boolean(text));
    if (text) input.setAttribute('aria-invalid', 'true');
  };
  input.addEventListener('input', () => say(null));
  const check = async () => {
    const text = await trouble(input.value);
    say(text);
    if (text) input.focus();
    return !text;
  };
  const line = el('div', { class: 'line' }, input);
  const node = el('div', { class: 'field' }, el('label', { for: id }, label),
    hint && el('p', { id: hintId, class: 'hint' }, hint), line, wrong);
  return { node, input, line, say, check, value: () => input.value };
}

/** A field for a password, which can be shown. */
export function passwordField({ label, account, isNew = false, ...rest }) {
  const made = field({
    label, type: 'password', autocomplete: isNew ? 'new-password' : 'current-password',
    trouble: (text) => (text === '' ? t('password.empty') : null), ...rest,
  });
  const toggle = el('button', { type: 'button', class: 'plain reveal', 'aria-pressed': 'false' });
  const reveal = (isShownNow) => {
    made.input.type = isShownNow ? 'text' : 'password';
    toggle.setAttribute('aria-pressed', String(isShownNow));
    toggle.textContent = isShownNow ? t('password.hide') : t('password.show');
  };
  toggle.addEventListener('click', () => reveal(made.input.type === 'password'));
  reveal(false);
  made.line.append(toggle);
  const shownSign = isNew ? null : sign(account);
  if (shownSign) made.node.prepend(shownSign);
  made.refused = (error) => {
    if (error.code !== 'wrong_password' || isNew) return false;
    made.say(t('password.wrong'));
    made.input.select();
    made.input.focus();
    return true;
  };
  return made;
}

/** The choice of a new password: a phrase that the page makes, or an own one. */
export async function newPassword({ names }) {
  const id = newId();
  const words = el('p', { class: 'phrase', lang: 'en', dir: 'ltr', translate: 'no' });
  let made = await password.phrase();
  const fresh = async () => {
    made = await password.phrase();
    tell();
    announce(made);
  };
  const copy = el('span', {});
  const tell = () => {
    words.textContent = made;
    copy.replaceChildren(copyButton(made, t('copy')));
  };
  const written = el('input', { type: 'checkbox', id });
  const wrong = el('p', { class: 'wrong', 'aria-live': 'polite' });
  const generated = el('div', {},
    el('p', { class: 'hint' }, t('phrase.hint')), words,
    el('div', { class: 'row' }, copy,
      el('button', { type: 'button', class: 'quiet', on: { click: fresh } }, t('phrase.other'))),
    el('div', { class: 'check' }, written, el('label', { for: id }, t('phrase.written'))), wrong);
  const own = passwordField({
    label: t('password.new'), isNew: true, hint: t('password.hint'),
    trouble: async (text) => {
      const key = await password.weakness(text, names);
      return key && t(key, { min: password.MIN_LENGTH, max: password.MAX_LENGTH });
    },
  });
  const twice = passwordField({
    label: t('password.again'), isNew: true,
    trouble: (text) => (password.fold(text) === password.fold(own.value()) ? null : t('password.differs')),
  });
  const typed = el('div', { hidden: true }, own.node, twice.node);
  let isOwn = false;
  const choose = (wanted) => {
    isOwn = wanted;
    generated.hidden = isOwn;
    typed.hidden = !isOwn;
    // Already now; what fails is tried again when the password is checked.
    if (isOwn) password.prepare().catch(() => {});
  };
  const options = choice(t('phrase.choice'), [[false, t('phrase.ours')], [true, t('phrase.own')]], choose);
  const check = async () => {
    if (isOwn) return (await own.check()) && twice.check();
    wrong.textContent = written.checked ? '' : t('phrase.write');
    if (!written.checked) written.focus();
    return written.checked;
  };
  written.addEventListener('change', () => (wrong.textContent = ''));
  tell();
  const node = el('div', { class: 'new-password' }, options, generated, typed);
  return { node, check, value: () => (isOwn ? own.value() : made) };
}

/** A choice between a few things, as radio buttons that look like one bar. */
export function choice(legend, options, chosen) {
  const name = newId();
  return el('fieldset', { class: 'choice' }, el('legend', { class: 'unseen' }, legend), options.map(
    ([value, label], at) => {
      const id = newId();
      const input = el('input', { type: 'radio', id, name, on: { change: () => chosen(value) } });
      input.checked = at === 0;
      return [input, el('label', { for: id }, label)];
    }));
}

/** What the owner reads about a time. */
export function when(milliseconds, format = time) {
  return el('time', { datetime: new Date(milliseconds).toISOString() }, format(milliseconds));
}

/** The names that an attacker knows of a user. */
export function namesOf({ user, launch }) {
  const names = [user.first_name, user.last_name, user.username, ...launch.usernames];
  return names.filter(Boolean).map(String);
}
