// The cluster's images, and which nodes have them.

import { h } from '../dom.js';
import { bytes, plural } from '../format.js';
import { filterField, missing, more, table, time } from '../parts.js';

const SHOWN_STEP = 200;

export function images(context) {
  let found = [];
  let away = [];
  let loaded = false;
  let filter = '';
  let shown = SHOWN_STEP;

  function row(image) {
    const arriving = image.copies.filter((copy) => copy.percent < 100).map((copy) => `${copy.node} (${copy.percent} %)`);
    const used = image.copies.reduce((sum, copy) => sum + copy.uses, 0);
    const last = Math.max(0, ...image.copies.map((copy) => copy.last_used_unix_s));
    return { key: `${image.name}:${image.tag} ${image.digest}`, cells: [
      image.name ? `${image.name}:${image.tag}` : 'without a name', bytes(image.size_bytes), [...image.nodes, ...arriving].join(', '),
      used || '', time(last), [...(image.config.entrypoint ?? []), ...(image.config.cmd ?? [])].join(' '), h('code', {}, image.digest.slice(0, 19)),
    ] };
  }

  return {
    title: 'Images',
    everyMs: 10_000,
    async load(signal) {
      ({ data: found, missing: away } = await context.api.get('/v1/images', { signal }));
      loaded = true;
    },
    draw() {
      if (!loaded) return h('p', { class: 'note' }, 'Asking the nodes ...');
      const rows = found.filter((image) => `${image.name}:${image.tag} ${image.digest} ${image.nodes.join(' ')}`.includes(filter));
      return [
        h('h1', {}, 'Images'),
        missing(away, 'their images are not shown'),
        h('div', { class: 'controls' }, filterField(filter, 'Filter')),
        rows.length > 0
          ? table(plural(rows.length, 'image'), ['name', '#size', 'nodes', '#in use', 'last used', 'runs', 'digest'], rows.slice(0, shown).map(row))
          : h('p', { class: 'note' }, 'None. ', h('code', {}, 'fofoca image import NAME FILE'), ' brings one in.'),
        more(Math.min(shown, rows.length), rows.length, 'image'),
      ];
    },
    acts: {
      filter(field) { filter = field.value; context.redraw(); },
      more() { shown += SHOWN_STEP; context.redraw(); },
    },
  };
}
