// The queue: who waits, in which order and why; what runs; what has ended.

import { h } from '../dom.js';
import { duration, plural } from '../format.js';
import { badge, choice, filterField, isFinal, missing, more, table, time } from '../parts.js';

const SHOWN_STEP = 100;
const REASONS_AT_ONCE = 4;
const REASONS_MAX = 25; // explained for the first so many that wait
const REASON_KEPT_MS = 15_000;
const TABS = { waiting: 'Waiting', running: 'Running', ended: 'Ended' };

export function queue(context, tab = 'waiting') {
  const kept = context.remember('queue', {
    filter: '', whose: 'all', reasons: new Map(), jobs: null, line: [], leader: '', away: [],
  });
  let shown = SHOWN_STEP;

  const ofTab = {
    waiting: (job) => job.tasks.pending > 0 && !isFinal(job.state),
    running: (job) => job.tasks.running > 0,
    ended: (job) => isFinal(job.state),
  };
  const current = Object.hasOwn(TABS, tab) ? tab : 'waiting';

  function wanted(job) {
    const text = `${job.id} ${job.name} ${job.owner} ${job.home} ${job.state}`.toLowerCase();
    return text.includes(kept.filter.toLowerCase()) && (kept.whose === 'all' || job.owner === context.me.user);
  }

  /** Jobs of the line in its order, then those that are not in it (held, depending on others). */
  function waiting() {
    const { jobs, line } = kept;
    const places = new Map(line.map((row, index) => [row.job, index]));
    const placeOf = (job) => places.get(job.id) ?? line.length;
    return jobs.filter(ofTab.waiting).sort((a, b) => placeOf(a) - placeOf(b) || a.submitted_unix_s - b.submitted_unix_s);
  }

  function found() {
    if (current === 'waiting') return waiting().filter(wanted);
    return kept.jobs.filter(ofTab[current]).filter(wanted).reverse();
  }

  function waitingRow(job) {
    const row = kept.line.find((each) => each.job === job.id);
    return { key: String(job.id), cells: [
      row?.position ?? '-', link(job), job.name, job.owner, job.home, row?.priority ?? '',
      job.tasks.pending, row ? duration(row.waiting_s) : duration(Date.now() / 1000 - job.submitted_unix_s),
      startOf(row), h('span', { class: 'why' }, kept.reasons.get(job.id)?.text ?? ''),
    ] };
  }

  const otherRow = (job) => ({ key: String(job.id), cells: [
    link(job), job.name, job.owner, job.home, badge(job.state), counts(job), time(job.submitted_unix_s),
  ] });

  function draw() {
    const { jobs, leader, away } = kept;
    if (!jobs) return h('p', { class: 'note' }, 'Asking the nodes ...');
    const rows = found();
    const count = (name) => jobs.filter(ofTab[name]).filter(wanted).length;
    return [
      h('h1', {}, 'Queue'),
      h('p', { class: 'note' }, `${plural(jobs.length, 'job')} known; ${leader} keeps the order.`),
      missing(away, 'jobs of these homes are not shown'),
      h('div', { class: 'controls' },
        h('nav', { class: 'tabs', 'aria-label': 'Jobs' }, Object.entries(TABS).map(([name, text]) =>
          h('a', { href: `#/queue/${name}`, 'aria-current': name === current ? 'page' : null }, `${text} ${count(name).toLocaleString('en')}`))),
        filterField(kept.filter, 'Filter'),
        context.operator && choice('Whose', 'whose', { all: "everybody's", mine: 'mine' }, kept.whose)),
      rows.length === 0 && h('p', { class: 'note' }, 'None.'),
      rows.length > 0 && (current === 'waiting'
        ? table('Jobs that wait, the next one first', ['#place', '#job', 'name', 'owner', 'home', '#priority', '#tasks', '#waits', 'starts', 'why'], rows.slice(0, shown).map(waitingRow))
        : table(`Jobs: ${TABS[current].toLowerCase()}`, ['#job', 'name', 'owner', 'home', 'state', 'tasks', 'submitted'], rows.slice(0, shown).map(otherRow))),
      more(Math.min(shown, rows.length), rows.length, 'job'),
    ];
  }

  async function explain(signal) {
    const now = Date.now();
    const wantedReasons = found().slice(0, REASONS_MAX).filter((job) => now - (kept.reasons.get(job.id)?.atMs ?? 0) > REASON_KEPT_MS);
    const next = async () => {
      for (let job = wantedReasons.shift(); job; job = wantedReasons.shift()) {
        const text = await context.api.get(`/v1/jobs/${job.id}/explain`, { signal })
          .then(({ data }) => data.summary, (error) => (signal.aborted ? Promise.reject(error) : error.message));
        kept.reasons.set(job.id, { text, atMs: Date.now() });
      }
    };
    await Promise.all(Array.from({ length: REASONS_AT_ONCE }, next));
    const living = new Set(kept.jobs.map((job) => job.id));
    for (const id of kept.reasons.keys()) if (!living.has(id)) kept.reasons.delete(id);
  }

  return {
    title: 'Queue',
    same: 'queue',
    async load(signal) {
      const [all, order] = await Promise.all([
        context.api.get('/v1/jobs', { signal }),
        // Without a leader in reach there is no order, but still jobs.
        context.api.get('/v1/queue', { signal }).catch((error) => ({ data: { jobs: [], leader: `nobody in reach (${error.message})` } })),
      ]);
      Object.assign(kept, { jobs: all.data, away: all.missing, line: order.data.jobs, leader: order.data.leader });
      if (current !== 'waiting') return;
      context.redraw();
      await explain(signal);
    },
    draw,
    acts: {
      filter(field) { kept.filter = field.value; shown = SHOWN_STEP; context.redraw(); },
      whose(field) { kept.whose = field.value; context.redraw(); },
      more() { shown += SHOWN_STEP; context.redraw(); },
    },
  };
}

const link = (job) => h('a', { href: `#/jobs/${job.id}` }, String(job.id));

const counts = (job) => Object.entries(job.tasks).map(([state, count]) => `${count.toLocaleString('en')} ${state}`).join(', ');

function startOf(row) {
  if (!row) return '';
  if (row.quota) return `limit of ${row.quota}`;
  if (row.making_room) return `${plural(row.making_room, 'node')} being freed`;
  return typeof row.start_in_s === 'number' ? `in about ${duration(row.start_in_s)}` : 'not known';
}
