// One question at a time, asked before anything is changed.

import { h, render } from './dom.js';

/** Ask; resolves to whether the answer was yes. Escape is a no. */
export function confirm(question, detail, yes) {
  const dialog = document.getElementById('dialog');
  dialog.returnValue = '';
  render(
    dialog,
    h('form', { method: 'dialog' },
      h('h2', { id: 'question' }, question),
      h('p', {}, detail),
      h('p', { class: 'buttons' },
        h('button', { value: '', autofocus: true }, 'No'),
        h('button', { value: 'yes', class: 'grave' }, yes))),
  );
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => resolve(dialog.returnValue === 'yes'), { once: true });
  });
}
