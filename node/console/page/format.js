// Numbers as people read them. Memory in binary units, CPU in cores, times in the browser's own zone.

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** 1610612736 -> "1.5 GiB" */
export function bytes(count) {
  let unit = 0;
  while (count >= 1024 && unit < UNITS.length - 1) {
    count /= 1024;
    unit += 1;
  }
  return `${trimmed(count, count < 10 && unit > 0 ? 1 : 0)} ${UNITS[unit]}`;
}

/** 1500 -> "1.5" (cores) */
export const cores = (milli) => trimmed(milli / 1000, milli % 1000 ? 2 : 0);

/** 0.256 -> "26 %" */
export const percent = (share) => `${Math.round(share * 100)} %`;

/** 4000 -> "1h 6m": the two largest units */
export function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const parts = [
    [Math.floor(whole / 86400), 'd'],
    [Math.floor(whole / 3600) % 24, 'h'],
    [Math.floor(whole / 60) % 60, 'm'],
    [whole % 60, 's'],
  ];
  const first = parts.findIndex(([count]) => count > 0);
  if (first < 0) return seconds > 0 ? `${trimmed(seconds, 2)}s` : '0s';
  return parts.slice(first, first + 2).filter(([count]) => count).map(([count, unit]) => count + unit).join(' ');
}

/** A moment in unix seconds, in short; today's without the date. */
export function moment(unixS) {
  const at = new Date(unixS * 1000);
  const time = at.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: '2-digit' });
  return at.toDateString() === new Date().toDateString() ? time : `${at.toLocaleDateString()} ${time}`;
}

export const plural = (count, one, many = `${one}s`) => `${count.toLocaleString('en')} ${count === 1 ? one : many}`;

function trimmed(value, digits) {
  return value.toFixed(digits).replace(/(\.\d*?)0+$/, '$1').replace(/\.$/, '');
}
