// A new wallet.

import { Act } from '../api.js';
import { el, show } from '../dom.js';
import { address, card, closeButton, copyButton, form, linkTo, namesOf, newPassword, note, sign }
  from '../parts.js';
import { hash } from '../password.js';
import { rich, t } from '../texts.js';

export async function screen(context) {
  if (context.account) return ready(context, t('onboard.had'));
  const create = new Act('POST', '/wallet');
  const chosen = await newPassword({ names: namesOf(context) });
  const run = async () => {
    const password_hash = await hash(context.launch.telegram_id, chosen.value());
    context.account = await create.send({ password_hash });
    await context.reload();
    ready(context, t('onboard.done'));
  };
  show(
    t('onboard.title'),
    el('p', { class: 'lead' }, rich('onboard.hello', { name: context.user.first_name ?? '' })),
    card(t('onboard.password'), form({ fields: [chosen], label: t('onboard.create'), run })),
    note('warning', el('p', {}, t('onboard.keep'))),
    context.footer(),
  );
}

function ready({ account, footer }, title) {
  show(
    title,
    el('div', { class: 'tick', 'aria-hidden': 'true', 'data-final': true }),
    card(
      t('address'), el('p', {}, address(account.address)),
      el('p', { class: 'hint' }, account.username
        ? rich('onboard.name', { name: `@${account.username}` })
        : t('onboard.noname')),
      copyButton(account.address, t('copy')),
    ),
    sign(account) && card(t('sign.title'), sign(account), el('p', { class: 'hint' }, t('sign.why'))),
    note('good', el('p', {}, t('onboard.email')), linkTo('e', t('onboard.addemail'), 'link')),
    closeButton(t('tochat')),
    footer(),
  );
}
