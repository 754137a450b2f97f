// Pieces that several views show.

import { h } from './dom.js';
import { moment, plural } from './format.js';

const FINAL = ['succeeded', 'failed', 'cancelled', 'lost'];

export const isFinal = (state) => FINAL.includes(state);

export const badge = (state) => h('span', { class: `badge state-${state}` }, state);

export const time = (unixS) =>
  unixS ? h('time', { datetime: new Date(unixS * 1000).toISOString() }, moment(unixS)) : '';

/** A table in a box that scrolls sideways; `columns`: names, those with a # in front are numbers. */
export function table(caption, columns, rows) {
  const number = columns.map((name) => name.startsWith('#'));
  const cell = (content, index) => h('td', { class: number[index] ? 'number' : null }, content);
  return h('div', { class: 'wide', tabindex: 0, role: 'region', 'aria-label': caption },
    h('table', {},
      h('caption', {}, caption),
      h('thead', {}, h('tr', {}, columns.map((name, index) =>
        h('th', { scope: 'col', class: number[index] ? 'number' : null }, name.replace('#', ''))))),
      h('tbody', {}, rows.map(({ key, cells }) => h('tr', { 'data-key': key }, cells.map(cell))))));
}

/** Say which nodes did not answer, if any. */
export function missing(names, what) {
  if (!names.length) return null;
  return h('p', { class: 'note bad' }, `No answer from ${names.join(', ')}: ${what}.`);
}

/** A field to narrow down what is shown; the key / leads to it. */
export function filterField(value, label) {
  return h('label', {}, `${label} `,
    h('input', { id: 'filter', type: 'search', value, 'data-act': 'filter', 'data-on': 'input', autocomplete: 'off' }));
}

export function choice(label, act, options, chosen) {
  return h('label', {}, `${label} `,
    h('select', { 'data-act': act, 'data-on': 'change' },
      Object.entries(options).map(([value, text]) => h('option', { value, selected: value === chosen }, text))));
}

/** A button for what a bound leaves out. */
export function more(shown, total, noun) {
  if (shown >= total) return null;
  return h('p', {}, h('button', { 'data-act': 'more' }, `Show more (${plural(total - shown, noun)} left)`));
}

/** A bar from 0 to 1: filled up to one share, outlined up to another, with a mark. Shares are of the bar's length. */
export function bar(label, filled, outlined, mark) {
  const length = (share) => String(Math.min(100, Math.max(0, share * 100)).toFixed(1));
  return h('svg:svg', { class: 'bar', viewBox: '0 0 100 8', preserveAspectRatio: 'none', role: 'img', 'aria-label': label },
    h('svg:rect', { class: 'bar-back', width: 100, height: 8 }),
    h('svg:rect', { class: 'bar-outlined', width: length(outlined), height: 8 }),
    h('svg:rect', { class: 'bar-filled', width: length(filled), height: 8 }),
    mark !== null && h('svg:rect', { class: 'bar-mark', x: length(mark - 0.006), width: 1.2, height: 8 }));
}
