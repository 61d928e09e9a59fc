// The page itself: theme, where the reader is, sortable tables, folds on paper. Without scripts nothing here is missed.
const root = document.documentElement;
const all = (query, within = document) => [...within.querySelectorAll(query)];
const make = (tag, props = {}, ...inside) => {
  const element = Object.assign(document.createElement(tag), props);
  element.append(...inside);
  return element;
};
root.classList.add('js');

let parsed = null;
// The part of the report's JSON that a figure names by its path ("sections/0/blocks/2").
const lookUp = (path) => {
  parsed ??= JSON.parse(document.getElementById('report-data').textContent);
  return path.split('/').reduce((value, key) => value[key], parsed);
};

// Three significant digits, all before the point, as in the tables.
const digits = (value) => {
  if (value === null || value === undefined) return 'not measured';
  if (typeof value !== 'number') return String(value);
  const short = Math.abs(value) < 999.5 ? Number(value.toPrecision(3)) : Math.round(value);
  return String(short).replace('-', '−');
};

const remember = (key, value) => {
  try {
    if (value === undefined) return localStorage.getItem(key);
    localStorage.setItem(key, value);
  } catch { /* storage is refused inside sandboxed frames */ }
  return null;
};

const setUpTheme = () => {
  const dark = matchMedia('(prefers-color-scheme: dark)');
  const current = () => root.dataset.theme || (dark.matches ? 'dark' : 'light');
  const button = make('button', { type: 'button' });
  const name = () => { button.textContent = current() === 'dark' ? 'Light page' : 'Dark page'; };
  const saved = remember('gandissect-theme');
  if (saved === 'dark' || saved === 'light') root.dataset.theme = saved;
  button.addEventListener('click', () => {
    root.dataset.theme = current() === 'dark' ? 'light' : 'dark';
    remember('gandissect-theme', root.dataset.theme);
    name();
  });
  dark.addEventListener('change', name);
  name();
  document.querySelector('.side details').append(button);
};

// Marks the section in view in the list of sections.
const spy = () => {
  const links = new Map(all('.side a').map((link) => [decodeURIComponent(link.hash.slice(1)), link]));
  const parts = all('#top, .part');
  const update = () => {
    const reached = parts.filter((part) => part.getBoundingClientRect().top < innerHeight * 0.35);
    const current = links.get((reached.at(-1) || parts[0]).id);
    const group = current.closest('li details');
    if (group && !current.hasAttribute('aria-current')) group.open = true;
    for (const link of links.values()) {
      if (link === current) link.setAttribute('aria-current', 'true');
      else link.removeAttribute('aria-current');
    }
  };
  let waiting = false;
  addEventListener('scroll', () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; update(); });
  }, { passive: true });
  update();
};

const sortTable = (table, column, head) => {
  const up = head.getAttribute('aria-sort') !== 'ascending';
  all('th', table.tHead).forEach((other) => other.removeAttribute('aria-sort'));
  head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
  const key = (row) => {
    const cell = row.cells[column];
    return cell && cell.dataset.order !== undefined ? Number(cell.dataset.order) : (cell ? cell.textContent : '');
  };
  const rows = [...table.tBodies[0].rows].map((row, place) => ({ row, place, key: key(row) }));
  const order = (a, b) => {
    const numbers = typeof a.key === 'number' && typeof b.key === 'number';
    if (typeof a.key !== typeof b.key) return typeof a.key === 'number' ? -1 : 1;
    const by = numbers ? a.key - b.key : String(a.key).localeCompare(String(b.key), 'en', { numeric: true });
    return (up ? by : -by) || a.place - b.place;
  };
  table.tBodies[0].append(...rows.sort(order).map((item) => item.row));
};

const setUpTables = () => {
  for (const table of all('table[data-sortable]')) {
    if (table.tBodies[0].rows.length < 2) continue;
    all('th', table.tHead).forEach((head, column) => {
      const button = make('button', { type: 'button', textContent: head.textContent, title: 'Sort by this column' });
      button.addEventListener('click', () => sortTable(table, column, head));
      head.replaceChildren(button);
    });
  }
};

const setUpPaper = () => {
  let closed = [];
  addEventListener('beforeprint', () => {
    closed = all('main details:not([open])');
    closed.forEach((fold) => { fold.open = true; });
    all('img[loading]').forEach((image) => { image.loading = 'eager'; });
  });
  addEventListener('afterprint', () => closed.forEach((fold) => { fold.open = false; }));
};

// Blocks of which one is shown at a time; on paper all are.
const setUpTabs = () => {
  for (const tabs of all('.tabs')) {
    const parts = all('.tab', tabs).filter((part) => part.parentElement === tabs);
    const buttons = parts.map((part) => make('button', { type: 'button', textContent: part.dataset.name }));
    const show = (place) => parts.forEach((part, i) => {
      part.classList.toggle('away', i !== place);
      buttons[i].setAttribute('aria-pressed', i === place);
    });
    buttons.forEach((button, place) => button.addEventListener('click', () => show(place)));
    tabs.prepend(make('div', { className: 'tab-names' }, ...buttons));
    show(0);
  }
};

// A link into a closed fold opens it.
const openTarget = (hash) => {
  const target = document.getElementById(decodeURIComponent(hash.slice(1).split('?')[0]));
  for (let fold = target && target.closest('details'); fold; fold = fold.parentElement.closest('details')) fold.open = true;
  return target;
};

const narrow = matchMedia('(max-width: 900px)');
const foldSections = () => { document.querySelector('.side details').open = !narrow.matches; };
narrow.addEventListener('change', foldSections);
foldSections();
setUpTheme();
spy();
setUpTables();
setUpTabs();
setUpPaper();
addEventListener('hashchange', () => openTarget(location.hash));
openTarget(location.hash);
// Inside a frame made from text (a notebook), "#part" would mean the page around it.
addEventListener('click', (event) => {
  const link = event.target.closest?.('a[href^="#"]');
  if (!link || location.protocol !== 'about:') return;
  event.preventDefault();
  openTarget(link.hash)?.scrollIntoView();
  goToCard(link.hash);
});
