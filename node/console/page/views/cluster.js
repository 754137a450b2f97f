// All nodes as a map of heat: how much of what each one permits is promised, and how much is used.

import { h } from '../dom.js';
import { bytes, cores, percent, plural } from '../format.js';
import { badge, bar, choice, filterField, more } from '../parts.js';

const HEAT_STEPS = 10;
const DETAILED_MAX = 60; // with more nodes, tiles are small
const SHOWN_STEP = 1000;
const MEASURES = {
  fuller: 'the fuller of both, committed',
  memory: 'memory committed',
  cpu: 'CPU committed',
  memoryUsed: 'memory used',
  cpuUsed: 'CPU used',
};

export function cluster(context, selected) {
  let shown = SHOWN_STEP;
  const state = context.remember('cluster', { filter: '', measure: 'fuller', nodes: null });

  function tile(node, small) {
    const share = heatOf(node, state.measure);
    const heat = Math.min(HEAT_STEPS, Math.round(share * HEAT_STEPS));
    const said = `${node.name}: ${words(node)}, ${percent(share)} of ${MEASURES[state.measure]}`;
    const classes = ['tile', `heat-${heat}`, small && 'small', node.state !== 'alive' && 'away', node.name === selected && 'chosen'];
    return h('a', {
      href: node.name === selected ? '#/cluster' : `#/cluster/${encodeURIComponent(node.name)}`,
      class: classes.filter(Boolean).join(' '), title: said, 'aria-label': said, 'data-key': node.name,
    },
    h('b', {}, node.leader ? `${node.name} ★` : node.name),
    !small && h('span', { class: 'tile-state' }, words(node)),
    !small && [['CPU', 'cpu_milli', 'cpu', cores], ['memory', 'memory_bytes', 'memory', bytes]].map(([label, field, ratio, shape]) =>
      h('span', { class: 'tile-row' }, h('i', {}, label), amountBar(node, field, ratio, shape))));
  }

  function draw() {
    const { nodes } = state;
    if (!nodes) return h('p', { class: 'note' }, 'Asking the node ...');
    const word = state.filter.toLowerCase();
    const found = nodes.filter((node) => textOf(node).includes(word));
    const small = found.length > DETAILED_MAX;
    return [
      h('h1', {}, 'Cluster'),
      h('p', { class: 'note' }, summary(nodes)),
      h('div', { class: 'controls' },
        filterField(state.filter, 'Filter'),
        choice('Heat', 'measure', MEASURES, state.measure),
        h('span', { class: 'scale', 'aria-hidden': 'true' }, '0 % ',
          Array.from({ length: HEAT_STEPS + 1 }, (_, step) => h('i', { class: `heat-${step}` })), ' 100 % of permitted')),
      // Above the tiles, of which there may be many screens.
      detail(context, nodes.find((node) => node.name === selected)),
      h('div', { class: 'tiles' }, found.slice(0, shown).map((node) => tile(node, small))),
      more(Math.min(shown, found.length), found.length, 'node'),
    ];
  }

  return {
    title: 'Cluster',
    same: 'cluster',
    async load(signal) {
      const { data } = await context.api.get('/v1/nodes', { signal });
      state.nodes = data.sort((a, b) => a.name.localeCompare(b.name, 'en', { numeric: true }));
    },
    draw,
    acts: {
      filter(field) { state.filter = field.value; context.redraw(); },
      measure(field) { state.measure = field.value; context.redraw(); },
      more() { shown += SHOWN_STEP; context.redraw(); },
      cordon: () => context.order(`Cordon ${selected}?`, 'It takes nothing new; what it has goes on.', 'Cordon', 'POST', at('cordon')),
      uncordon: () => context.order(`Uncordon ${selected}?`, 'It takes tasks again; a drain ends.', 'Uncordon', 'POST', at('uncordon')),
      drain: () => context.order(
        `Drain ${selected}?`, 'It takes nothing new; its services move to other nodes, batch tasks may end.', 'Drain', 'POST', at('drain')),
    },
  };

  function at(verb) {
    return `/v1/nodes/${encodeURIComponent(selected)}/${verb}`;
  }
}

/** Return how much of the permitted is taken, 0 to 1 and above. */
function heatOf(node, measure) {
  const share = (amounts, field, ratio) => amounts[field] / (node.allocatable[field] * node.permitted[ratio] || 1);
  const shares = {
    memory: share(node.committed, 'memory_bytes', 'memory'),
    cpu: share(node.committed, 'cpu_milli', 'cpu'),
    memoryUsed: share(node.used, 'memory_bytes', 'memory'),
    cpuUsed: share(node.used, 'cpu_milli', 'cpu'),
  };
  return measure === 'fuller' ? Math.max(shares.memory, shares.cpu) : shares[measure];
}

function words(node) {
  if (node.draining) return `${node.state}, draining`;
  return node.accepting || node.state !== 'alive' ? node.state : `${node.state}, cordoned`;
}

function textOf(node) {
  const labels = Object.entries(node.labels).map(([name, value]) => `${name}=${value}`);
  return [node.name, words(node), node.leader ? 'leader' : '', ...labels].join(' ').toLowerCase();
}

/** Used and committed on a bar that is as long as the larger of allocatable and permitted; the mark is allocatable. */
function amountBar(node, field, ratio, shape) {
  const allocatable = node.allocatable[field];
  const whole = allocatable * Math.max(1, node.permitted[ratio]) || 1;
  const said = `used ${shape(node.used[field])}, committed ${shape(node.committed[field])},`
    + ` permitted ${shape(allocatable * node.permitted[ratio])}, allocatable ${shape(allocatable)}`;
  const mark = node.permitted[ratio] > 1 ? allocatable / whole : null;
  return bar(said, node.used[field] / whole, node.committed[field] / whole, mark);
}

function summary(nodes) {
  const alive = nodes.filter((node) => node.state === 'alive');
  const sum = (part, field) => alive.reduce((total, node) => total + node[part][field], 0);
  const leader = nodes.find((node) => node.leader);
  return `${plural(nodes.length, 'node')}, ${alive.length} alive; ${leader ? `${leader.name} keeps the queue` : 'nobody keeps the queue'};`
    + ` CPU ${cores(sum('committed', 'cpu_milli'))} of ${cores(sum('allocatable', 'cpu_milli'))} cores committed,`
    + ` memory ${bytes(sum('committed', 'memory_bytes'))} of ${bytes(sum('allocatable', 'memory_bytes'))}.`;
}

function detail(context, node) {
  if (!node) return null;
  const row = (label, field, ratio, shape) => h('tr', {}, h('th', { scope: 'row' }, label),
    h('td', {}, shape(node.used[field])), h('td', {}, shape(node.committed[field])), h('td', {}, shape(node.allocatable[field])),
    h('td', {}, percent(node.permitted[ratio])), h('td', {}, shape(node.capacity[field])),
    h('td', { class: 'stretch' }, amountBar(node, field, ratio, shape)));
  const button = (act, text) => h('button', { 'data-act': act }, text);
  return h('section', { class: 'card', 'aria-label': `Node ${node.name}` },
    h('h2', {}, node.name, ' ', badge(node.state)),
    h('p', { class: 'note' }, `number ${node.number ?? '?'} at ${node.address || 'an unknown address'}; ${plural(node.containers, 'container')};`
      + ` ${node.draining ? 'draining' : node.accepting ? 'takes tasks' : 'takes nothing new'}${node.leader ? '; keeps the queue' : ''}`),
    h('div', { class: 'wide' }, h('table', {},
      h('thead', {}, h('tr', {}, ['', 'used', 'committed', 'allocatable', 'permitted', 'capacity', ''].map((name) => h('th', { scope: 'col' }, name)))),
      h('tbody', {}, row('CPU', 'cpu_milli', 'cpu', cores), row('memory', 'memory_bytes', 'memory', bytes)))),
    h('p', { class: 'labels' }, Object.entries(node.labels).sort().map(([name, value]) => h('code', {}, value ? `${name}=${value}` : name))),
    context.operator && h('p', { class: 'buttons' },
      node.accepting && !node.draining ? button('cordon', 'Cordon') : button('uncordon', 'Uncordon'),
      !node.draining && button('drain', 'Drain')));
}
