// Elements from data, and the page brought up to them piece by piece.
//
// Everything that users or nodes wrote becomes a text node or an attribute, never markup. Events are found by their
// `data-act` (main.js), so an element needs no handlers, and replacing what changed keeps focus, selection and scroll.

const SVG = 'http://www.w3.org/2000/svg';

/** Make an element; 'svg:rect' makes one of SVG. Children: elements, texts, lists of them; null and false are left out. */
export function h(name, attributes = {}, ...children) {
  const element = name.startsWith('svg:')
    ? document.createElementNS(SVG, name.slice(4))
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) setAttribute(element, key, value);
  element.append(...nodes(children));
  return element;
}

function setAttribute(element, key, value) {
  if (value === null || value === undefined || value === false) return;
  if (/^(on|style$|src)/i.test(key)) throw new Error(`attribute ${key} is not for data`);
  if (key === 'href' && !String(value).startsWith('#/')) throw new Error('links lead to views of the console only');
  element.setAttribute(key, value === true ? '' : String(value));
}

function nodes(children) {
  return children
    .flat(Infinity)
    .filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (child instanceof Node ? child : document.createTextNode(String(child))));
}

/** Give an element these children, keeping those it has that are alike. `data-key` tells siblings apart. */
export function render(target, ...children) {
  matchChildren(target, nodes(children));
}

function matchChildren(target, fresh) {
  const keyed = new Map();
  for (const child of target.childNodes) if (keyOf(child)) keyed.set(keyOf(child), child);
  let place = target.firstChild;
  for (const node of fresh) {
    const old = keyOf(node) ? keyed.get(keyOf(node)) : place;
    if (old && alike(old, node)) {
      if (old === place) place = place.nextSibling;
      else target.insertBefore(old, place);
      update(old, node);
    } else {
      target.insertBefore(node, place);
    }
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

const keyOf = (node) => node.dataset?.key ?? '';

const alike = (old, node) => old.nodeName === node.nodeName && keyOf(old) === keyOf(node);

function update(old, node) {
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== node.data) old.data = node.data;
    return;
  }
  for (const { name } of [...old.attributes]) if (!node.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of node.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  // What a view fills by itself (a log) is its own.
  if (!old.hasAttribute('data-own')) matchChildren(old, [...node.childNodes]);
}
