// Scatter plots: the picture of the nearest point, its card, a lasso, other colourings, and turning of 3-D ones. Same sums as projection.py.

const VIRIDIS = ['440154', '472d7b', '3b528b', '2c728e', '21918c', '28ae80', '5ec962', 'addc30', 'fde725'].map((hex) => [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16)));
const viridis = (t) => {
  const at = Math.min(0.99999, Math.max(0, t)) * (VIRIDIS.length - 1), low = Math.floor(at);
  return `rgb(${VIRIDIS[low].map((v, i) => Math.round(v + (VIRIDIS[low + 1][i] - v) * (at - low))).join(' ')})`;
};

const SVG = document.querySelector('svg')?.namespaceURI;
const draw = (tag, attributes) => {
  const element = document.createElementNS(SVG, tag);
  Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, value));
  return element;
};

const setUpScatter = (figure) => {
  const block = lookUp(figure.dataset.json);
  const svg = figure.querySelector('.points'), stage = figure.querySelector('.stage'), layer = svg.querySelector('.marks');
  const marks = [];
  all('path', layer).forEach((mark) => { marks[mark.dataset.i] = mark; });
  const places = marks.map((mark) => mark.getAttribute('transform').match(/-?[\d.]+/g).map(Number));
  const box = make('div', { className: 'hover', hidden: true }), canvas = make('canvas'), words = make('div');
  words.setAttribute('role', 'status');
  box.append(canvas, words);
  stage.append(box);
  const links = marks.map((mark) => mark.closest('a'));
  const cards = links.map((link) => link && document.getElementById(decodeURIComponent(link.getAttribute('href').slice(1))));
  const sprites = figure.querySelector('.sprites') ? spriteDrawer(figure, canvas) : cardDrawer(cards, canvas);
  let chosen = -1;

  const describe = (i) => [block.labels?.[i] || `point ${i}`, block.labels?.[i]?.includes(block.groups?.[i]) ? '' : block.groups?.[i],
    block.values ? `${block.value_label || 'value'} ${digits(block.values[i])}` : '',
    ...Object.entries(block.colourings || {}).map(([name, column]) => `${name} ${digits(column[i])}`)].filter(Boolean).join(' · ');
  const choose = (i) => {
    if (chosen >= 0) { marks[chosen].classList.remove('on'); cards[chosen]?.classList.remove('linked'); }
    chosen = i;
    box.hidden = i < 0;
    if (i < 0) return;
    marks[i].classList.add('on');
    cards[i]?.classList.add('linked');
    words.textContent = describe(i) + (cards[i] ? ' · click for its card' : '');
    sprites(i);
    const [x, y] = places[i];
    box.style.left = `${Math.min(x + 14, stage.clientWidth - 180)}px`;
    box.style.top = `${y > 300 ? y - 150 : y + 14}px`;
  };
  const nearest = (event) => {
    const view = svg.getBoundingClientRect();
    const x = (event.clientX - view.left) * svg.viewBox.baseVal.width / view.width, y = (event.clientY - view.top) * svg.viewBox.baseVal.height / view.height;
    let best = -1, least = 400;
    places.forEach(([px, py], i) => {
      const distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance < least) { least = distance; best = i; }
    });
    return best;
  };
  const open = () => {
    if (!cards[chosen]) return;
    const hash = links[chosen].getAttribute('href');
    if (location.hash === hash) goToCard(hash);
    else location.hash = hash;
  };
  svg.setAttribute('tabindex', '0');
  svg.addEventListener('pointermove', (event) => { if (!event.buttons) choose(nearest(event)); });
  svg.addEventListener('pointerleave', () => choose(-1));
  svg.addEventListener('blur', () => choose(-1));
  svg.addEventListener('keydown', (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === 'Escape') choose(-1);
    if (event.key === 'Enter') open();
    if (!by || event.shiftKey) return;
    event.preventDefault();
    choose((chosen + by + marks.length) % marks.length);
  });
  setUpColourings(figure, block, marks);
  if (cards.some(Boolean)) {
    links.forEach((link) => { if (link) link.tabIndex = -1; });
    setUpPicking(figure, block, marks, cards, places, { choose, nearest, open, current: () => chosen });
  }
  if (figure.classList.contains('solid')) setUpTurning(svg, block, marks, places, () => choose(-1));
};

// Shows the cards of some points in every gallery, and the same points in every plot; all of them again for nothing.
const pick = (ids) => document.dispatchEvent(new CustomEvent('pick', { detail: ids }));

const within = (loop, [x, y]) => loop.reduce((inside, [ax, ay], i) => {
  const [bx, by] = loop.at(i - 1);
  return (ay > y) !== (by > y) && x < (bx - ax) * (y - ay) / (by - ay) + ax ? !inside : inside;
}, false);

// Points are picked with a lasso, with Space, or all of a group by its entry in the legend.
const setUpPicking = (figure, block, marks, cards, places, { choose, nearest, open, current }) => {
  const svg = figure.querySelector('.points'), line = draw('polygon', { class: 'lasso' });
  const said = make('span'), clear = make('button', { type: 'button', textContent: 'Show all', hidden: true });
  const hint = 'Draw around points to see only their cards. Arrow keys and Space pick points, Enter opens a card.';
  const bar = make('p', { className: 'readout quiet' }, said, ' ', clear);
  said.setAttribute('role', 'status');
  said.textContent = hint;
  figure.querySelector('.scroll').after(bar);
  svg.append(line);
  let picked = new Set(), loop = null, drawn = false;
  const show = (chosen) => {
    picked = chosen;
    clear.hidden = !chosen.size;
    marks.forEach((mark, i) => mark.classList.toggle('off', chosen.size > 0 && !chosen.has(i)));
    const known = [...chosen].filter((i) => cards[i]).length;
    said.textContent = chosen.size ? `${chosen.size} of ${marks.length} points picked; ${known} of them have a card.` : hint;
  };
  const take = (chosen) => {
    pick(chosen.size ? new Set([...chosen].map((i) => cards[i]?.id).filter(Boolean)) : null);
    show(chosen);
  };
  document.addEventListener('pick', ({ detail }) => show(new Set(detail ? cards.flatMap((card, i) => (card && detail.has(card.id) ? [i] : [])) : [])));
  clear.addEventListener('click', () => { take(new Set()); svg.focus(); });
  const at = (event) => {
    const view = svg.getBoundingClientRect();
    return [(event.clientX - view.left) * svg.viewBox.baseVal.width / view.width, (event.clientY - view.top) * svg.viewBox.baseVal.height / view.height];
  };
  const free = !figure.classList.contains('solid');
  svg.addEventListener('dragstart', (event) => event.preventDefault());
  svg.addEventListener('pointerdown', (event) => { drawn = false; loop = free && event.button === 0 ? [at(event)] : null; });
  svg.addEventListener('pointermove', (event) => {
    if (!loop || !event.buttons) return;
    loop.push(at(event));
    if (!drawn && Math.hypot(loop.at(-1)[0] - loop[0][0], loop.at(-1)[1] - loop[0][1]) < 6) return;
    if (!drawn) { drawn = true; svg.setPointerCapture(event.pointerId); choose(-1); }
    line.setAttribute('points', loop.map((point) => point.map(Math.round).join()).join(' '));
  });
  addEventListener('pointerup', () => {
    if (loop && drawn) take(new Set(places.flatMap((place, i) => (within(loop, place) ? [i] : []))));
    loop = null;
    line.setAttribute('points', '');
  });
  svg.addEventListener('click', (event) => {
    event.preventDefault();
    if (drawn) return;
    choose(nearest(event));
    open();
  });
  svg.addEventListener('keydown', (event) => {
    if (event.key === 'Escape') take(new Set());
    if (event.key !== ' ' || current() < 0) return;
    event.preventDefault();
    const next = new Set(picked);
    if (!next.delete(current())) next.add(current());
    take(next);
  });
  all('.keys li', figure).forEach((item) => {
    const group = item.textContent.trim();
    if (!block.groups?.includes(group)) return;
    const button = make('button', { type: 'button', title: 'Pick all of these' }, ...item.childNodes);
    button.addEventListener('click', () => take(new Set(block.groups.flatMap((name, i) => (name === group ? [i] : [])))));
    item.append(button);
  });
  marks.forEach((mark, i) => { if (cards[i]) (pointsOf.get(cards[i]) || pointsOf.set(cards[i], []).get(cards[i])).push(mark); });
};

// Card -> its points; a card under the pointer or with the focus lights them.
const pointsOf = new Map();
let lit = null;
const lightUp = (event) => {
  const card = event.target.closest?.('.card') || null;
  if (card === lit) return;
  pointsOf.get(lit)?.forEach((mark) => mark.classList.remove('on'));
  pointsOf.get(card)?.forEach((mark) => mark.classList.add('on'));
  lit = card;
};
addEventListener('pointerover', lightUp);
addEventListener('focusin', lightUp);

// Draws the first picture of a point's card.
const cardDrawer = (cards, canvas) => (i) => {
  const sheet = cards[i]?.querySelector('.sheet'), image = sheet?.querySelector('img');
  canvas.hidden = !sheet;
  if (!sheet) return;
  image.loading = 'eager';
  canvas.width = 96;
  image.decode().then(() => drawPicture(canvas, sheet, 0, 96), () => {});
};

// A function that draws the picture of a point; the sheet is decoded when it is first asked for.
const spriteDrawer = (figure, canvas) => {
  const sheet = figure.querySelector('.sprites');
  canvas.hidden = !sheet;
  if (!sheet) return () => {};
  const image = sheet.querySelector('img');
  return (i) => {
    image.loading = 'eager';
    const [w, h] = sheet.dataset.cell.split(' ').map(Number), { columns, rows } = sheet.dataset;
    const now = () => {
      const cw = image.naturalWidth / columns, ch = image.naturalHeight / rows;
      canvas.width = 96;
      canvas.height = Math.round(96 * ch * h / (cw * w));
      const pen = canvas.getContext('2d');
      pen.imageSmoothingEnabled = false;
      pen.drawImage(image, (i % columns) * cw, Math.floor(i / columns) * ch, Math.round(cw * w), Math.round(ch * h), 0, 0, canvas.width, canvas.height);
    };
    if (image.complete && image.naturalWidth) now();
    else image.decode().then(now, () => {});
  };
};

const setUpColourings = (figure, block, marks) => {
  const columns = { ...(block.values ? { [block.value_label || 'value']: block.values } : {}), ...(block.colourings || {}) };
  const names = Object.keys(columns);
  const grouped = Boolean(block.groups && block.groups.length);
  if (names.length + grouped < 2) return;
  const first = marks.map((mark) => mark.style.fill);
  const select = make('select', {}, ...(grouped ? [make('option', { value: '', textContent: 'group' })] : []), ...names.map((name) => make('option', { value: name, textContent: name })));
  const legend = figure.querySelector('.scale') || make('p', { className: 'scale', hidden: true, innerHTML: '<span class="num"></span> <span class="ramp"></span> <span class="num"></span> <span></span>' });
  legend.querySelector('.ramp').style.background = `linear-gradient(to right, ${VIRIDIS.map((c) => `rgb(${c.join(' ')})`).join(', ')})`;
  select.addEventListener('change', () => {
    const column = columns[select.value];
    legend.hidden = !column;
    if (!column) { marks.forEach((mark, i) => { mark.style.fill = first[i]; }); return; }
    const known = column.filter((value) => value !== null);
    const low = Math.min(...known), high = Math.max(...known);
    marks.forEach((mark, i) => { mark.style.fill = column[i] === null ? '#969696' : viridis((column[i] - low) / (high - low || 1)); });
    const [left, right] = all('.num', legend);
    left.textContent = digits(low);
    right.textContent = digits(high);
    legend.lastElementChild.textContent = select.value;
  });
  const stage = figure.querySelector('.scroll');
  stage.before(make('label', { className: 'control' }, 'Coloured by', select));
  if (!legend.isConnected) stage.before(legend);
};

const setUpTurning = (svg, block, marks, places, still) => {
  const { width, height } = svg.viewBox.baseVal;
  const reach = 215 * 0.78, frame = svg.querySelector('.frame'), layer = svg.querySelector('.marks');
  let azimuth = 0.65, elevation = 0.42;
  const spans = [0, 1, 2].map((axis) => {
    const column = block.points.map((point) => point[axis] ?? 0);
    const low = Math.min(...column), high = Math.max(...column);
    return [low, high > low ? high - low : 1];
  });
  const unit = block.points.map((point) => point.map((value, axis) => (value - spans[axis][0]) / spans[axis][1] * 2 - 1));
  const turn = ([x, y, z]) => {
    const ca = Math.cos(azimuth), sa = Math.sin(azimuth), ce = Math.cos(elevation), se = Math.sin(elevation);
    const across = x * ca - y * sa, depth = x * sa + y * ca;
    return [width / 2 + reach * across, height / 2 - reach * (z * ce + depth * se), z * se - depth * ce];
  };
  const corners = [-1, 1].flatMap((x) => [-1, 1].flatMap((y) => [-1, 1].map((z) => [x, y, z])));
  const redraw = () => {
    const flat = corners.map(turn), parts = [];
    corners.forEach((a, i) => corners.forEach((b, j) => {
      if (j > i && a.filter((v, k) => v !== b[k]).length === 1) {
        parts.push(draw('line', { class: ['0 4', '0 2', '2 3'].includes(`${i} ${j}`) ? 'axis' : 'grid', x1: flat[i][0], y1: flat[i][1], x2: flat[j][0], y2: flat[j][1] }));
      }
    }));
    [[1.16, -1, -1], [-1, 1.16, -1], [-1, 1, 1.16]].forEach((end, axis) => {
      const [x, y] = turn(end), text = draw('text', { class: 'axis-name', 'text-anchor': 'middle', x, y: y + 4 });
      text.textContent = block.axes[axis] || '';
      parts.push(text);
    });
    frame.replaceChildren(...parts);
    const seen = unit.map(turn);
    seen.forEach(([x, y], i) => { places[i] = [x, y]; marks[i].setAttribute('transform', `translate(${x.toFixed(1)} ${y.toFixed(1)})`); });
    const order = seen.map((_, i) => i).sort((a, b) => seen[a][2] - seen[b][2]);
    layer.append(...order.map((i) => marks[i]));
  };
  const by = (dx, dy) => {
    still();
    azimuth += dx;
    elevation = Math.min(1.5, Math.max(-1.5, elevation + dy));
    redraw();
  };
  svg.addEventListener('pointerdown', (event) => svg.setPointerCapture(event.pointerId));
  svg.addEventListener('pointermove', (event) => { if (event.buttons) by(event.movementX * 0.008, event.movementY * 0.008); });
  svg.addEventListener('keydown', (event) => {
    const step = { ArrowRight: [0.12, 0], ArrowLeft: [-0.12, 0], ArrowUp: [0, -0.12], ArrowDown: [0, 0.12] }[event.key];
    if (step && event.shiftKey) { event.preventDefault(); by(...step); }
  });
  svg.closest('.scroll').after(make('p', { className: 'quiet hint', textContent: 'Drag to turn, or Shift with the arrow keys. Arrow keys alone go from point to point.' }));
};

all('figure.scatter').forEach(setUpScatter);
