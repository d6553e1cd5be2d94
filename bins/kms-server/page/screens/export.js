// The key of the wallet, as a file for other wallets, and its passphrase.

import { Act } from '../api.js';
import { el, show } from '../dom.js';
import { card, closeButton, copyButton, form, note, passwordField } from '../parts.js';
import { hash } from '../password.js';
import { t } from '../texts.js';

/** How long the passphrase is shown. */
const SHOWN = 60_000;

export async function screen(context) {
  const secret = passwordField({ label: t('password'), account: context.account });
  const act = new Act('POST', '/export');
  const run = async () => {
    const password_hash = await hash(context.launch.telegram_id, secret.value());
    exported(await act.send({ password_hash }));
  };
  show(
    t('export.title'),
    el('p', { class: 'lead' }, t('export.text')),
    note('danger', el('p', {}, t('export.danger'))),
    card(t('export.card'), form({ fields: [secret], label: t('export.do'), danger: true, run })),
    closeButton(t('cancel')),
    context.footer(),
  );
}

function exported({ address, keystore, passphrase }) {
  const url = URL.createObjectURL(new Blob([keystore], { type: 'application/json' }));
  show(
    t('export.done'),
    card(
      t('export.file'), el('p', { class: 'hint', 'data-final': true }, t('export.file.text')),
      el('a', { class: 'button', href: url, download: `wallet-${address}.json` }, t('export.save')),
      copyButton(keystore, t('export.copy')),
    ),
    card(t('export.passphrase'), el('p', { class: 'hint' }, t('export.passphrase.text')), secretText(passphrase)),
    note('danger', el('p', {}, t('export.apart'))),
    // Without the languages: another one would show the screen anew, and the passphrase never again.
    closeButton(t('export.closed')),
  );
}

/** A text that hides itself. */
function secretText(text) {
  const words = el('p', { class: 'phrase', dir: 'ltr', translate: 'no' });
  let timer;
  const set = (isShown) => {
    clearTimeout(timer);
    words.textContent = isShown ? text : '\u2022\u2022\u2022\u2022 \u2022\u2022\u2022\u2022';
    button.textContent = isShown ? t('password.hide') : t('password.show');
    button.setAttribute('aria-pressed', String(isShown));
    if (isShown) timer = setTimeout(() => set(false), SHOWN);
  };
  const button = el('button', {
    type: 'button', class: 'quiet', on: { click: () => set(button.getAttribute('aria-pressed') !== 'true') },
  });
  set(true);
  return [words, el('div', { class: 'row' }, copyButton(text, t('copy')), button)];
}
