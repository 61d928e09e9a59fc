// Galleries: search, order, filters, a count, arrow keys; the state is in the address (#dissection/layer4/unit-123?sort=IoU).

const setUpGallery = (gallery) => {
  const list = gallery.querySelector('.cards');
  const cards = all('.card', list).map((element) => ({
    element,
    words: element.dataset.words,
    place: Number(element.dataset.place),
    facets: JSON.parse(element.dataset.facets),
    sort: JSON.parse(element.dataset.sort),
  }));
  const facets = Object.entries(JSON.parse(gallery.dataset.facets)), sorts = JSON.parse(gallery.dataset.sorts);
  const search = make('input', { type: 'search', placeholder: 'Search', ariaLabel: 'Search the cards' });
  const choice = (name, options) => {
    const select = make('select', {}, ...options.map(([value, text]) => make('option', { value, textContent: text })));
    return [make('label', {}, name, select), select];
  };
  const filters = facets.map(([name, values]) => [name, ...choice(name, [['', 'all'], ...values.map((value) => [value, value])])]);
  const [orderLabel, order] = choice('sorted by', [['', 'as listed'], ...sorts.map((name) => [name, name])]);
  const count = make('span', { className: 'count' });
  count.setAttribute('role', 'status');

  let picked = null;
  const apply = () => {
    const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const key = (card) => card.sort[order.value] ?? -Infinity;
    const sorted = [...cards].sort((a, b) => (order.value ? key(b) - key(a) : 0) || a.place - b.place);
    let shown = 0;
    for (const card of sorted) {
      const fits = (!picked || picked.has(card.element.id)) && wanted.every((word) => card.words.includes(word))
        && filters.every(([name, , select]) => !select.value || card.facets[name] === select.value);
      card.element.hidden = !fits;
      shown += fits;
    }
    list.append(...sorted.map((card) => card.element));
    count.textContent = shown === cards.length ? `${shown} cards` : `${shown} of ${cards.length} cards`;
  };

  const note = () => {
    const state = new URLSearchParams();
    if (search.value) state.set('q', search.value);
    if (order.value) state.set('sort', order.value);
    filters.forEach(([name, , select]) => { if (select.value) state.set(name, select.value); });
    const place = location.hash.split('?')[0] || `#${gallery.closest('.part')?.id ?? ''}`;
    try { history.replaceState(null, '', state.size ? `${place}?${state}` : place); } catch { /* refused inside sandboxed frames */ }
  };

  const restore = () => {
    const state = new URLSearchParams(location.hash.split('?')[1] || '');
    const here = decodeURIComponent(location.hash.slice(1).split('?')[0]).split('/')[0] === gallery.closest('.part')?.id;
    if (!here || !state.size) return;
    search.value = state.get('q') || '';
    order.value = state.get('sort') || '';
    filters.forEach(([name, , select]) => { select.value = state.get(name) || ''; });
    apply();
  };

  search.addEventListener('input', () => { apply(); note(); });
  [order, ...filters.map(([, , select]) => select)].forEach((select) => select.addEventListener('change', () => { apply(); note(); }));
  document.addEventListener('pick', ({ detail }) => {
    picked = detail && cards.some((card) => detail.has(card.element.id)) ? detail : null;
    unpick.hidden = !picked;
    apply();
  });
  const unpick = make('button', { type: 'button', textContent: 'Picked points only ✕', title: 'Show all cards', hidden: true });
  unpick.addEventListener('click', () => document.dispatchEvent(new CustomEvent('pick', { detail: null })));
  const tools = make('div', { className: 'tools' }, search, ...filters.map(([, label]) => label), ...(sorts.length ? [orderLabel] : []), unpick, count);
  if (cards.length > 3) list.before(tools);
  walk(list);
  apply();
  restore();
  addEventListener('hashchange', restore);
};

// One card at a time takes the focus; arrows go to its neighbours, Enter shows its pictures large.
const walk = (list) => {
  const visible = () => all('.card:not([hidden])', list);
  // The Tab key stops at one card and its fold, not at those of five hundred.
  const reach = (card, index) => [card, ...all('summary', card)].forEach((element) => { element.tabIndex = index; });
  const take = (card) => {
    all('.card[tabindex="0"]', list).forEach((other) => reach(other, -1));
    reach(card, 0);
  };
  all('.card', list).forEach((card, place) => {
    reach(card, place ? -1 : 0);
    card.addEventListener('focus', () => take(card));
  });
  list.addEventListener('keydown', (event) => {
    const card = event.target;
    if (!card.classList.contains('card')) return;
    const cards = visible(), at = cards.indexOf(card);
    const across = Math.max(1, cards.findIndex((other) => other.offsetTop > cards[0].offsetTop));
    const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across, Home: -at, End: cards.length - 1 - at }[event.key];
    const sheet = card.querySelector('.sheet');
    if (event.key === 'Enter' && sheet) { event.preventDefault(); light(sheet, 0); }
    if (by === undefined) return;
    event.preventDefault();
    const next = cards[Math.min(cards.length - 1, Math.max(0, at + by))];
    next.focus();
  });
};

// A link with state after "?" finds its card, too.
const goToCard = (hash) => {
  const target = document.getElementById(decodeURIComponent(hash.slice(1).split('?')[0]));
  all('.card.near').forEach((card) => card.classList.remove('near'));
  if (!target || !target.classList.contains('card')) return;
  target.hidden = false;
  target.classList.add('near');
  target.focus({ preventScroll: true });
  // Cards off screen have estimated heights, so that the place is only right once those around it are drawn.
  const go = (times) => {
    target.scrollIntoView({ block: 'center', behavior: 'instant' });
    if (times) requestAnimationFrame(() => setTimeout(go, 60, times - 1));
  };
  go(4);
};

all('figure.gallery').forEach(setUpGallery);
addEventListener('hashchange', () => goToCard(location.hash));
goToCard(location.hash);
