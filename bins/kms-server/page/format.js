// Amounts, times and addresses as people read them.

import { language } from './texts.js';

/** A number of the smallest unit as coins. No digits are grouped: "1.000" and "1,000" are read
 * differently in different places. */
export function coins(units, decimals) {
  const digits = BigInt(units).toString().padStart(decimals + 1, '0');
  const whole = digits.slice(0, digits.length - decimals);
  const fraction = digits.slice(digits.length - decimals).replace(/0+$/, '');
  return fraction ? whole + point() + fraction : whole;
}

/** An amount of the native coin, or of a token, with its symbol. */
export function amount(units, asset) {
  return `${coins(units, asset.decimals)}\u00a0${asset.symbol}`;
}

/** The chain with this id. One that the server does not have any more is shown by its number. */
export function networkOf({ networks }, chainId) {
  return networks.find((known) => known.chain_id === chainId)
    ?? { chain_id: chainId, name: `chain ${chainId}`, symbol: 'coins', tokens: [], explorer: null };
}

/** The native coin as an asset. */
export function native(network) {
  return { symbol: network.symbol, decimals: 18 };
}

function point() {
  return language === 'de' ? ',' : '.';
}

/** Reads coins as people type them, or returns null. Of what can be read in two ways (1.000), none
 * is taken. */
export function readCoins(text, decimals) {
  const typed = text.trim();
  if (!/^\d{1,30}([.,]\d{1,18})?$/.test(typed)) return null;
  const [whole, fraction = ''] = typed.split(/[.,]/);
  if (fraction.length === 3 && whole !== '0' && !typed.includes(point())) return null;
  if (fraction.length > decimals) return null;
  const plain = whole.replace(/^0+(?=\d)/, '') + (fraction ? `.${fraction}` : '');
  return plain;
}

/** A date and a time. */
export function time(milliseconds) {
  const style = { dateStyle: 'medium', timeStyle: 'short' };
  return new Intl.DateTimeFormat(language, style).format(new Date(milliseconds));
}

/** A time of this day. */
export function clock(milliseconds) {
  return new Intl.DateTimeFormat(language, { timeStyle: 'medium' }).format(new Date(milliseconds));
}

/** A date. */
export function date(milliseconds) {
  return new Intl.DateTimeFormat(language, { dateStyle: 'medium' }).format(new Date(milliseconds));
}

/** How long it takes: "in 5 minutes". */
export function until(seconds) {
  const format = new Intl.RelativeTimeFormat(language, { numeric: 'always' });
  if (seconds < 90) return format.format(Math.ceil(seconds), 'second');
  if (seconds < 90 * 60) return format.format(Math.ceil(seconds / 60), 'minute');
  if (seconds < 36 * 3600) return format.format(Math.ceil(seconds / 3600), 'hour');
  return format.format(Math.ceil(seconds / 86400), 'day');
}

/** An address in groups of four. */
export function groups(address) {
  return [address.slice(0, 2), ...address.slice(2).match(/.{4}/g)].join(' ');
}

/** The beginning and the end of an address, for a list. */
export function short(address) {
  return `${address.slice(0, 6)}\u2026${address.slice(-4)}`;
}
