'use strict';
// Keeps the page current: asks for it again every few seconds while it is visible, and replaces what has changed. The
// scroll position, open details and the focus stay.
const INTERVAL_MS = 5000;
// The calendar of days is large and changes slowly: every sixth time.
const COVERAGE_EVERY = 6;

let asked = 0;
let isAsking = false;

async function refresh() {
  if (document.hidden || isAsking) return;
  isAsking = true;
  asked += 1;
  const connection = document.getElementById('connection');
  try {
    const answer = await fetch(asked % COVERAGE_EVERY ? './?without=coverage' : './', { headers: { accept: 'text/html' } });
    if (answer.status === 401) {
      location.reload();
      return;
    }
    if (!answer.ok) throw new Error(answer.status);
    replaceParts(new DOMParser().parseFromString(await answer.text(), 'text/html'));
    if (connection.textContent) connection.textContent = '';
  } catch {
    connection.textContent = 'koregate does not answer now; this is its last state.';
  } finally {
    isAsking = false;
  }
}

function replaceParts(page) {
  document.title = page.title;
  for (const part of page.querySelectorAll('[data-live]')) {
    const own = document.getElementById(part.id);
    if (!own || part.childElementCount + part.textContent.trim().length === 0 && part.id === 'coverage-live') continue;
    const focused = own.contains(document.activeElement) && document.activeElement !== own ? document.activeElement : null;
    // What has the focus and no name cannot be found again.
    if (focused && !focused.id) continue;
    for (const open of own.querySelectorAll('details[open][id]')) {
      part.querySelector('#' + CSS.escape(open.id))?.setAttribute('open', '');
    }
    if (own.innerHTML === part.innerHTML) continue;
    const scrolled = [...own.querySelectorAll('.scroll[id]')].map(box => [box.id, box.scrollLeft, box.scrollTop]);
    own.replaceChildren(...part.childNodes);
    for (const [id, left, top] of scrolled) document.getElementById(id)?.scrollTo(left, top);
    if (focused) document.getElementById(focused.id)?.focus({ preventScroll: true });
  }
}

setInterval(refresh, INTERVAL_MS);
document.addEventListener('visibilitychange', refresh);

// Purging: the steps of the form are shown in a dialog instead of on pages of their own.
const form = document.getElementById('purge-form');
const dialog = document.getElementById('purge-dialog');

form.addEventListener('submit', event => {
  event.preventDefault();
  showStep(form);
});

dialog.addEventListener('submit', event => {
  event.preventDefault();
  showStep(event.target);
});

dialog.addEventListener('click', event => {
  const link = event.target.closest('a');
  if (!link) return;
  event.preventDefault();
  dialog.close();
});

dialog.addEventListener('close', () => {
  form.querySelector('button').focus();
  refresh();
});

async function showStep(sent) {
  const button = sent.querySelector('button');
  button.disabled = true;
  try {
    const answer = await fetch(sent.getAttribute('action'), { method: 'POST', body: new URLSearchParams(new FormData(sent)) });
    const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
    const content = page.querySelector('#main > section');
    if (content) dialog.replaceChildren(...content.childNodes);
    else dialog.textContent = 'It was refused. Load the page again.';
  } catch {
    dialog.textContent = 'koregate does not answer.';
  }
  button.disabled = false;
  if (!dialog.open) dialog.showModal();
  dialog.querySelector('h1')?.setAttribute('id', 'dialog-title');
  (dialog.querySelector('a') ?? dialog).focus();
}

document.addEventListener('click', async event => {
  const button = event.target.closest('button[data-copy]');
  if (!button) return;
  await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
  button.textContent = 'Copied';
});
for (const button of document.querySelectorAll('button[data-copy]')) button.hidden = !navigator.clipboard;
