// Matrices too large to print their numbers: a cursor that names row, column and value, by pointer or arrow keys.

const setUpMatrix = (figure) => {
  const field = figure.querySelector('.field');
  if (!field) return;
  const { rows, columns, values, unit } = lookUp(figure.dataset.json);
  const picture = figure.querySelector('.field-picture'), names = all('.field-rows li', figure);
  const cursor = make('span', { className: 'cursor', hidden: true });
  const readout = make('p', { className: 'readout quiet', textContent: 'Point at a cell, or focus the matrix and use the arrow keys.' });
  readout.setAttribute('role', 'status');
  picture.append(cursor);
  figure.querySelector('.scroll').after(readout);
  picture.tabIndex = 0;
  picture.setAttribute('role', 'application');
  picture.setAttribute('aria-label', 'Matrix; arrow keys move from cell to cell, Enter opens the row');
  let at = [0, 0];
  const show = (row, column) => {
    at = [Math.min(rows.length - 1, Math.max(0, row)), Math.min(columns.length - 1, Math.max(0, column))];
    const box = picture.getBoundingClientRect();
    cursor.hidden = false;
    cursor.style.top = `${at[0] / rows.length * box.height}px`;
    cursor.style.left = `${at[1] / columns.length * box.width}px`;
    readout.textContent = `${rows[at[0]]}, ${columns[at[1]]}: ${digits(values[at[0]][at[1]])}${unit ? ` ${unit}` : ''}`;
    names.forEach((name, index) => name.classList.toggle('shown', index === at[0]));
  };
  const open = () => { const link = names[at[0]].querySelector('a'); if (link) location.hash = link.hash; };
  picture.addEventListener('pointermove', (event) => {
    const box = picture.getBoundingClientRect();
    show(Math.floor((event.clientY - box.top) / box.height * rows.length), Math.floor((event.clientX - box.left) / box.width * columns.length));
  });
  picture.addEventListener('focus', () => show(...at));
  picture.addEventListener('click', open);
  picture.addEventListener('keydown', (event) => {
    const by = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1] }[event.key];
    if (event.key === 'Enter') open();
    if (!by) return;
    event.preventDefault();
    show(at[0] + by[0], at[1] + by[1]);
  });
};

all('figure.matrix').forEach(setUpMatrix);
