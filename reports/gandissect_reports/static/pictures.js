// Sheets of pictures: one picture large, opacity of maps, the seam between before and after, frames of a strip.

// The picture at a place of the page, as its number on the sheet; -1 outside of the pictures.
const pictureAt = (sheet, event) => {
  const box = sheet.getBoundingClientRect();
  const { columns, rows, count } = sheet.dataset;
  const [w, h] = sheet.dataset.cell.split(' ').map(Number);
  const x = (event.clientX - box.left) / box.width * columns;
  const y = (event.clientY - box.top) / box.height * rows;
  const index = Math.floor(y) * columns + Math.floor(x);
  return x % 1 <= w && y % 1 <= h && index >= 0 && index < count ? index : -1;
};

// Draws picture `index` of a sheet (and the map over it) on a canvas, `width` CSS pixels wide.
const drawPicture = (canvas, sheet, index, width, left = 0) => {
  const [w, h] = sheet.dataset.cell.split(' ').map(Number);
  const { columns, rows } = sheet.dataset;
  const images = all('img', sheet).filter((image) => image.complete && image.naturalWidth);
  if (!images.length) return;
  const cellWidth = images[0].naturalWidth / columns, cellHeight = images[0].naturalHeight / rows;
  const height = Math.round(width * (cellHeight * h) / (cellWidth * w));
  if (!left) { canvas.width = Math.max(canvas.width, width); canvas.height = height; }
  const pen = canvas.getContext('2d');
  pen.imageSmoothingEnabled = width < cellWidth * w;
  for (const image of images) {
    const opacity = image.classList.contains('map') ? Number(getComputedStyle(image).opacity) : 1;
    pen.globalAlpha = opacity;
    const x = (index % columns) * cellWidth, y = Math.floor(index / columns) * cellHeight;
    pen.drawImage(image, x, y, Math.round(cellWidth * w), Math.round(cellHeight * h), left, 0, width, height);
  }
  pen.globalAlpha = 1;
};

const wordsOf = (sheet, index) => {
  const tag = all('.tags li', sheet)[index];
  const card = sheet.closest('.card');
  const label = card && all('.image-labels li', card)[index];
  const name = sheet.querySelector('img').alt;
  const said = (tag && tag.title) || (label && label.textContent) || `picture ${index + 1} of ${sheet.dataset.count}`;
  return `${name}: ${said}`;
};

const light = (() => {
  const canvas = make('canvas'), said = make('span', { className: 'said' });
  said.setAttribute('aria-live', 'polite');
  let sheet = null, index = 0, size = 0;
  const show = () => {
    canvas.width = 1;
    drawPicture(canvas, sheet, index, size);
    canvas.setAttribute('aria-label', wordsOf(sheet, index));
    said.textContent = wordsOf(sheet, index);
  };
  const step = (by) => {
    const count = Number(sheet.dataset.count);
    index = (index + by + count) % count;
    show();
  };
  const zoom = (by) => { size = Math.round(Math.min(4096, Math.max(64, size * by))); show(); };
  const button = (text, act) => {
    const element = make('button', { type: 'button', textContent: text });
    element.addEventListener('click', act);
    return element;
  };
  canvas.setAttribute('role', 'img');
  const dialog = make('dialog', { className: 'light' }, make('div', { className: 'view' }, canvas),
    make('p', {}, button('← Previous', () => step(-1)), button('Next →', () => step(1)), button('Larger +', () => zoom(1.5)),
      button('Smaller −', () => zoom(1 / 1.5)), said, button('Close (Esc)', () => dialog.close())));
  dialog.setAttribute('aria-label', 'One picture, large');
  dialog.addEventListener('keydown', (event) => {
    const acts = { ArrowRight: () => step(1), ArrowLeft: () => step(-1), '+': () => zoom(1.5), '=': () => zoom(1.5), '-': () => zoom(1 / 1.5) };
    if (acts[event.key]) { event.preventDefault(); acts[event.key](); }
  });
  dialog.addEventListener('wheel', (event) => {
    if (event.ctrlKey) { event.preventDefault(); zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2); }
  }, { passive: false });
  dialog.querySelector('.view').addEventListener('click', (event) => { if (event.target !== canvas) dialog.close(); });
  document.body.append(dialog);
  return (from, at) => {
    sheet = from;
    index = at;
    size = Math.round(Math.min(innerWidth * 0.9, innerHeight * 0.8));
    dialog.showModal();
    show();
  };
})();

const setUpSheets = () => {
  for (const sheet of all('.sheet')) {
    if (sheet.closest('.pair')) continue;
    sheet.addEventListener('click', (event) => {
      const index = pictureAt(sheet, event);
      if (index >= 0) light(sheet, index);
    });
    if (sheet.closest('.card')) continue;
    sheet.tabIndex = 0;
    sheet.setAttribute('role', 'group');
    sheet.setAttribute('aria-label', 'Pictures; Enter shows them large');
    sheet.addEventListener('keydown', (event) => {
      if (event.key !== 'Enter' || event.target !== sheet) return;
      event.preventDefault();
      light(sheet, 0);
    });
  }
};

const slider = (words, props, act) => {
  const input = make('input', { type: 'range', ...props });
  const label = make('label', { className: 'control' }, make('span', { textContent: words }), input);
  input.addEventListener('input', () => act(Number(input.value)));
  return [label, input];
};

const setUpOverlays = () => {
  for (const figure of all('figure.overlay')) {
    const [label] = slider('Opacity of the maps', { min: 0, max: 100, value: 85 }, (value) => figure.style.setProperty('--o', value / 100));
    figure.prepend(label);
  }
};

const setUpSeams = () => {
  for (const figure of all('figure.compare')) {
    const pair = figure.querySelector('.pair');
    const [first, second] = all('.which', pair).map((p) => p.textContent);
    const set = (share) => figure.style.setProperty('--seam', `${share}%`);
    const [label, input] = slider(first, { min: 0, max: 100, value: 50 }, set);
    input.setAttribute('aria-label', `How much of “${first}” is shown over “${second}”`);
    label.append(make('span', { textContent: second }));
    set(50);
    for (const sheet of all('.sheet', pair)) sheet.append(make('span', { className: 'seam' }));
    const follow = (event) => {
      const sheet = pair.querySelector('.sheet'), box = sheet.getBoundingClientRect();
      const pitch = box.width / sheet.dataset.columns;
      input.value = 100 * (((event.clientX - box.left) % pitch) / pitch);
      set(Number(input.value));
    };
    pair.addEventListener('pointermove', (event) => { if (event.buttons || event.pointerType === 'mouse') follow(event); });
    pair.addEventListener('pointerdown', follow);
    figure.prepend(label);
  }
};

// The frames of a strip one after the other, large, under a slider.
const setUpStrips = () => {
  for (const figure of all('figure.film')) {
    const sheet = figure.querySelector('.sheet'), heads = all('.heads li', figure);
    const frames = heads.length, samples = Number(figure.dataset.samples);
    const canvas = make('canvas');
    canvas.setAttribute('role', 'img');
    const show = (frame) => {
      const shown = Math.min(samples, 6), width = Math.max(128, Math.round(sheet.getBoundingClientRect().width / frames)), gap = 6;
      canvas.width = shown * (width + gap);
      for (let sample = 0; sample < shown; sample += 1) {
        const one = make('canvas');
        drawPicture(one, sheet, sample * frames + frame, width);
        if (!sample) canvas.height = one.height;
        canvas.getContext('2d').drawImage(one, sample * (width + gap), 0);
      }
      heads.forEach((head, index) => head.classList.toggle('current', index === frame));
      input.setAttribute('aria-valuetext', heads[frame].textContent);
      words.textContent = heads[frame].textContent;
      canvas.setAttribute('aria-label', `The samples at ${heads[frame].textContent}`);
    };
    const [label, input] = slider('Frame', { min: 0, max: frames - 1, value: figure.dataset.origin }, show);
    const words = make('span');
    label.append(words);
    const fold = make('details', { className: 'player' }, make('summary', { textContent: 'Move through the frames' }), label, canvas);
    fold.addEventListener('toggle', () => { if (fold.open) show(Number(input.value)); });
    sheet.addEventListener('pointermove', (event) => {
      const index = pictureAt(sheet, event);
      if (fold.open && index >= 0 && Number(input.value) !== index % frames) { input.value = index % frames; show(index % frames); }
    });
    sheet.addEventListener('keydown', (event) => {
      const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!by) return;
      event.preventDefault();
      fold.open = true;
      input.value = Number(input.value) + by;
      show(Number(input.value));
    });
    figure.querySelector('.scroll').after(fold);
  }
};

setUpSheets();
setUpOverlays();
setUpSeams();
setUpStrips();
