// The frame: who is logged in, which view is shown, and what a press on something does.
//
// A view is made by a function of its context and arguments, and has: `title`, `load(signal)` (asks the API), `draw()`
// (returns what is shown), `acts` (by the name in `data-act`), and perhaps `everyMs` and `stop()`. The address has the
// view and what it shows (#/jobs/12001), nothing secret.

import { Api, ApiError } from './api.js';
import { confirm } from './dialog.js';
import { h, render } from './dom.js';
import { duration } from './format.js';
import { Poll } from './poll.js';
import { cluster } from './views/cluster.js';
import { images } from './views/images.js';
import { job } from './views/job.js';
import { login } from './views/login.js';
import { queue } from './views/queue.js';
import { usage } from './views/usage.js';

const TOKEN = 'fofoca.token';
const VIEWS = { cluster, queue, images, usage };
const NAMES = { cluster: 'Cluster', queue: 'Queue', images: 'Images', usage: 'Usage' };
const main = document.getElementById('main');

let api = new Api(sessionStorage.getItem(TOKEN));
let me = null;
let view = null;
let poll = null;
let memory = new Map();

/** Find out who we are to this node, then show what the address asks for. */
async function start() {
  try {
    me = (await api.get('/v1/version')).data;
  } catch (error) {
    me = null;
    if (error instanceof ApiError && [401, 403].includes(error.status)) {
      const refused = api.token ? error.message : '';
      forget();
      show(login(context, refused));
    } else {
      say(`${error.message}; trying again`, true);
      setTimeout(start, 3000);
    }
    return;
  }
  say('');
  route();
}

function forget() {
  sessionStorage.removeItem(TOKEN);
  api = new Api(null);
  me = null;
  // Whoever logs in next in this tab sees nothing of what was there.
  memory = new Map();
  render(main);
}

const context = {
  get api() { return api; },
  get me() { return me; },
  get operator() { return ['operator', 'admin'].includes(me?.role); },
  say,
  redraw,
  confirm,
  reload: () => poll?.now(),
  /** What a view keeps while others are shown: filters, and what it heard last. */
  remember(name, first) {
    if (!memory.has(name)) memory.set(name, first);
    return memory.get(name);
  },
  /** Try a token; it is kept, for this tab alone, once a node took it. */
  async logIn(token) {
    const tried = new Api(token);
    me = (await tried.get('/v1/version')).data;
    api = tried;
    sessionStorage.setItem(TOKEN, token);
    route();
  },
  /** Ask first, then order, then tell. */
  async order(question, detail, yes, method, path) {
    if (!(await confirm(question, detail, yes))) return;
    try {
      await api.order(method, path);
      say(`${yes}: ordered.`);
    } catch (error) {
      say(error.message, true);
    }
    poll?.now();
  },
};

function route() {
  if (me === null) return;
  const [name, ...args] = location.hash.replace(/^#\/?/, '').split('/').map(decoded);
  if (name === 'jobs' && args[0]) show(job(context, args[0]), 'queue');
  else if (Object.hasOwn(VIEWS, name)) show(VIEWS[name](context, ...args), name);
  else location.replace('#/cluster');
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function show(next, name = '') {
  poll?.stop();
  poll = null;
  view?.stop?.();
  const again = view?.same !== undefined && view.same === next.same;
  view = next;
  document.title = `${next.title} - Fofoca`;
  drawFrame(name);
  if (!again) window.scrollTo(0, 0);
  redraw();
  if (next.load) {
    poll = new Poll(async (signal) => {
      await next.load(signal);
      if (view === next) answered();
    }, failed, next.everyMs);
    poll.now();
  }
}

function drawFrame(current) {
  const link = (name) =>
    h('a', { href: `#/${name}`, 'aria-current': name === current ? 'page' : null, 'data-key': name }, NAMES[name]);
  render(document.getElementById('nav'), me && Object.keys(NAMES).map(link));
  render(
    document.getElementById('who'),
    me && h('span', {}, `${me.user} (${me.role}) at ${me.node}, cluster ${me.cluster}`),
    me && api.token && h('button', { 'data-act': 'logOut' }, 'Log out'),
  );
}

function redraw() {
  render(main, view.draw());
}

let trouble = false;

function answered() {
  if (trouble) say('');
  trouble = false;
  redraw();
}

function failed(error, retryMs) {
  if (error instanceof ApiError && error.status === 401) {
    forget();
    show(login(context, error.message));
    return;
  }
  trouble = true;
  say(`${error.message}; trying again in ${duration(Math.ceil(retryMs / 1000))}. What is shown may be old.`, true);
}

function say(text, bad = false) {
  const status = document.getElementById('status');
  status.textContent = text;
  status.className = bad ? 'bad' : '';
}

const common = {
  logOut() {
    forget();
    show(login(context, ''));
  },
};

function act(event) {
  const element = event.target.closest('[data-act]');
  if (!element || (element.dataset.on ?? 'click') !== event.type) return;
  if (event.type === 'submit') event.preventDefault();
  (common[element.dataset.act] ?? view.acts[element.dataset.act])?.(element);
}

for (const type of ['click', 'input', 'change', 'submit']) document.addEventListener(type, act);
document.addEventListener('keydown', (event) => {
  const typing = event.target.closest('input, select, textarea, dialog');
  const filter = document.getElementById('filter');
  if (event.key === '/' && !typing && filter) {
    event.preventDefault();
    filter.focus();
  }
});
window.addEventListener('hashchange', route);
start();
