// One job: its tasks and how they ended, why it waits or why it is where it is, what it wrote, and what to do with it.

import { h } from '../dom.js';
import { bytes, duration, plural } from '../format.js';
import { badge, choice, isFinal, more, table, time } from '../parts.js';
import { LogTail } from './log_tail.js';

const TASKS_STEP = 100;

export function job(context, id) {
  let data = null;
  let why = null;
  let shown = TASKS_STEP;
  const tail = new LogTail(context, id);
  const path = `/v1/jobs/${encodeURIComponent(id)}`;

  function draw() {
    if (!data) return h('p', { class: 'note' }, 'Asking the job’s home ...');
    queueMicrotask(() => tail.paint());
    const total = Object.values(data.counts).reduce((sum, count) => sum + count, 0);
    return [
      h('p', {}, h('a', { href: '#/queue' }, '← Queue')),
      h('h1', {}, `Job ${data.id} `, badge(data.state)),
      h('p', { class: 'note' }, h('b', {}, data.name), ` of ${data.owner}, home ${data.home}, submitted `, time(data.submitted_unix_s),
        `; ${Object.entries(data.counts).map(([state, count]) => `${count.toLocaleString('en')} ${state}`).join(', ')}`),
      buttons(),
      explained(),
      h('h2', {}, 'Tasks'),
      table(plural(total, 'task'), ['#task', 'state', 'node', '#attempt', '#exit', 'ran', '#memory peak', '#CPU time', 'addresses', 'reason'], data.tasks.map(taskRow)),
      more(data.tasks.length, total, 'task'),
      h('h2', {}, 'Output'),
      h('div', { class: 'controls' },
        choice('Task', 'task', Object.fromEntries(data.tasks.map((task) => [task.index, task.index])), String(tail.task)),
        choice('Stream', 'stream', { both: 'output and errors', stdout: 'output', stderr: 'errors' }, tail.stream),
        h('label', {}, h('input', { type: 'checkbox', 'data-act': 'follow', 'data-on': 'change', checked: tail.follow }), ' follow'),
        h('span', { class: 'note', id: 'log-state' }, tail.state)),
      h('pre', { id: 'log', tabindex: 0, 'data-own': true, 'aria-label': 'Output' }),
    ];
  }

  function buttons() {
    if (isFinal(data.state)) return null;
    const held = why?.reasons.some((reason) => reason.kind === 'hold');
    const button = (act, text, grave) => h('button', { 'data-act': act, class: grave ? 'grave' : null, 'data-key': act }, text);
    return h('p', { class: 'buttons' },
      data.counts.pending > 0 && (held ? button('release', 'Release') : button('hold', 'Hold')),
      data.counts.running > 0 && button('requeue', 'Requeue'),
      button('cancel', 'Cancel', true));
  }

  function explained() {
    if (!why) return null;
    const place = why.position ? ` Place ${why.position} of ${why.waiting} in the line that ${why.leader} keeps.` : '';
    const start = typeof why.start_in_s === 'number' ? ` It is expected to start in about ${duration(why.start_in_s)}.` : '';
    const placed = why.tasks.filter((task) => task.reason).slice(0, 20);
    return h('section', { class: 'card', 'aria-label': 'Why' },
      h('p', {}, why.summary + (why.summary.endsWith('.') ? '' : '.') + place + start),
      why.pending_tasks > 0 && why.reasons.length > 0 && h('ul', {}, why.reasons.map((reason) => h('li', {}, reason.text))),
      placed.length > 0 && h('ul', {}, placed.map((task) => h('li', {}, `task ${task.index} at ${task.node || 'no node yet'}: ${task.reason}`))));
  }

  const ask = (question, detail, yes, method, verb = '') =>
    context.order(question, detail, yes, method, verb ? `${path}/${verb}` : path);

  return {
    title: `Job ${id}`,
    same: `job ${id}`,
    async load(signal) {
      const [shownJob, explanation] = await Promise.all([
        context.api.get(`${path}?first=0&count=${shown}`, { signal }),
        context.api.get(`${path}/explain`, { signal }).catch(() => null),
      ]);
      data = shownJob.data;
      why = explanation?.data ?? null;
      if (data.tasks.length) tail.start(data.tasks[0].index);
    },
    draw,
    stop: () => tail.stop(),
    acts: {
      cancel: () => ask(`Cancel job ${id}?`, 'What waits never starts, what runs is stopped.', 'Cancel the job', 'DELETE'),
      hold: () => ask(`Hold job ${id}?`, 'Nothing more of it starts; what runs goes on.', 'Hold', 'POST', 'hold'),
      release: () => ask(`Release job ${id}?`, 'It lines up again.', 'Release', 'POST', 'release'),
      requeue: () => ask(`Requeue job ${id}?`, 'What runs of it is stopped, and lined up again.', 'Requeue', 'POST', 'requeue'),
      more() { shown = Math.min(10_000, shown + TASKS_STEP * 5); context.reload(); },
      task: (field) => tail.change({ task: Number(field.value) }),
      stream: (field) => tail.change({ stream: field.value }),
      follow: (field) => tail.change({ follow: field.checked }),
    },
  };
}

function taskRow(task) {
  const result = task.result;
  const ran = result?.ended_unix_s && result.started_unix_s ? duration(result.ended_unix_s - result.started_unix_s) : '';
  return { key: String(task.index), cells: [
    task.index, [badge(task.state), task.frozen && badge('frozen'), task.health && badge(task.health)], task.node, task.attempt || '', ended(task), ran,
    result?.memory_peak_bytes ? bytes(result.memory_peak_bytes) : '', result ? duration(result.cpu_ns / 1e9) : '',
    [...task.addresses, ...task.ports.map((port) => `${port.protocol} ${port.host_port}→${port.port}`)].join(', '),
    h('span', { class: 'why' }, [result?.error, task.reason].filter(Boolean).join('; ')),
  ] };
}

function ended(task) {
  const words = [task.result?.oom_killed && 'out of memory', task.result?.timed_out && 'time limit', task.result?.signal && `signal ${task.result.signal}`];
  return [task.exit_code ?? '', ...words.filter(Boolean)].join(' ');
}
