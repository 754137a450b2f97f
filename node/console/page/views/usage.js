// Who used what: by day, account and user, or by job.

import { h } from '../dom.js';
import { duration, plural } from '../format.js';
import { choice, filterField, missing, more, table } from '../parts.js';

const SHOWN_STEP = 200;
const DAY_MS = 86_400_000;
const RANGES = { 1: 'today', 7: '7 days', 30: '30 days', 90: '90 days', 365: 'a year' };
const COUNTERS = ['attempts', 'succeeded', 'run_ms', 'core_ms', 'memory_mib_s', 'charged_ms', 'cpu_ms'];

export function usage(context) {
  let rows = [];
  let away = [];
  let loaded = false;
  let filter = '';
  let by = 'day';
  let days = '30';
  let shown = SHOWN_STEP;

  const hours = (ms) => (ms / 3_600_000).toFixed(2);
  const counters = (row) => [
    row.attempts, row.succeeded, duration(row.run_ms / 1000), hours(row.core_ms), hours(row.cpu_ms), (row.memory_mib_s / 1024 / 3600).toFixed(2), hours(row.charged_ms),
  ];
  const names = ['#attempts', '#succeeded', '#ran', '#core hours', '#CPU hours used', '#GiB hours', '#charged hours'];

  function chart(found) {
    const byDay = new Map();
    for (const row of found) byDay.set(row.day, (byDay.get(row.day) ?? 0) + row.core_ms);
    const bars = [...byDay].sort().slice(-90);
    const most = Math.max(1, ...bars.map(([, ms]) => ms));
    return h('svg:svg', { class: 'chart', viewBox: '0 0 900 90', preserveAspectRatio: 'none', role: 'img', 'aria-label': 'Core hours by day' },
      bars.map(([day, ms], index) => h('svg:rect', {
        x: ((900 / bars.length) * index).toFixed(1), width: Math.min(60, (900 / bars.length) * 0.8).toFixed(1),
        y: (90 - (88 * ms) / most).toFixed(1), height: ((88 * ms) / most).toFixed(1),
      }, h('svg:title', {}, `${day}: ${hours(ms)} core hours`))));
  }

  function total(found) {
    return Object.fromEntries(COUNTERS.map((name) => [name, found.reduce((sum, row) => sum + row[name], 0)]));
  }

  return {
    title: 'Usage',
    everyMs: 30_000,
    async load(signal) {
      const first = new Date(Date.now() - (Number(days) - 1) * DAY_MS).toISOString().slice(0, 10);
      const query = by === 'job' ? 'by=job' : `first=${first}`;
      ({ data: rows, missing: away } = await context.api.get(`/v1/usage?${query}`, { signal }));
      loaded = true;
    },
    draw() {
      if (!loaded) return h('p', { class: 'note' }, 'Asking the nodes ...');
      const found = rows.filter((row) => `${row.day} ${row.account} ${row.user} ${row.job ?? ''} ${row.name}`.toLowerCase().includes(filter.toLowerCase()));
      const jobs = by === 'job';
      const head = (row) => (jobs ? [row.job, row.name, row.account, row.user] : [row.day, row.account, row.user]);
      const lead = jobs ? ['#job', 'name', 'account', 'user'] : ['day', 'account', 'user'];
      const sums = { key: 'total', cells: [h('b', {}, 'total'), ...lead.slice(1).map(() => ''), ...counters(total(found))] };
      const body = found.toReversed().slice(0, shown).map((row) => ({ key: head(row).join('\n'), cells: [...head(row), ...counters(row)] }));
      return [
        h('h1', {}, 'Usage'),
        missing(away, 'what ran for jobs of these homes is not counted'),
        h('div', { class: 'controls' },
          choice('By', 'by', { day: 'day, account and user', job: 'job' }, by),
          !jobs && choice('Of', 'days', RANGES, days),
          filterField(filter, 'Filter')),
        !jobs && found.length > 0 && chart(found),
        found.length > 0 ? table(plural(found.length, 'row'), [...lead, ...names], [sums, ...body]) : h('p', { class: 'note' }, 'Nothing has ended yet.'),
        more(Math.min(shown, found.length), found.length, 'row'),
      ];
    },
    acts: {
      by(field) { by = field.value; loaded = false; context.redraw(); context.reload(); },
      days(field) { days = field.value; context.reload(); },
      filter(field) { filter = field.value; context.redraw(); },
      more() { shown += SHOWN_STEP; context.redraw(); },
    },
  };
}
