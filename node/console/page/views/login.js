// Who are you? A token, as `fofoca token create` prints it.

import { h } from '../dom.js';

export function login(context, refused) {
  let message = refused;
  return {
    title: 'Log in',
    draw: () =>
      h('form', { class: 'login', 'data-act': 'logIn', 'data-on': 'submit' },
        h('h1', {}, 'Log in'),
        h('label', { for: 'token' }, 'Token'),
        h('input', { id: 'token', type: 'password', autocomplete: 'off', required: true, autofocus: true, spellcheck: 'false' }),
        h('p', { class: 'note' }, 'An administrator makes one with ',
          h('code', {}, 'fofoca token create --user NAME --role user'),
          '. It is kept until this tab is closed.'),
        message && h('p', { class: 'bad', role: 'alert' }, message),
        h('p', { class: 'buttons' }, h('button', {}, 'Log in'))),
    acts: {
      async logIn() {
        const field = document.getElementById('token');
        try {
          await context.logIn(field.value.trim());
        } catch (error) {
          message = error.message;
          context.redraw();
          field.select();
        }
      },
    },
  };
}
