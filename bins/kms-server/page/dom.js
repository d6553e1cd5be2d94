// Builds elements. Texts become text nodes: nothing on this page parses HTML.

/**
 * Makes an element. `on` has listeners, `class` its classes; any other property is an attribute,
 * left out if it is false, null or undefined.
 */
export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === 'on') {
      for (const [kind, listener] of Object.entries(value)) made.addEventListener(kind, listener);
    } else if (value !== false && value !== null && value !== undefined) {
      made.setAttribute(name, value === true ? '' : value);
    }
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** Shows a screen in place of the present one, and moves the focus to its heading. */
export function show(title, ...children) {
  const main = document.getElementById('screen');
  const heading = el('h1', { tabindex: '-1' }, title);
  main.replaceChildren(heading, ...children.flat(Infinity).filter(Boolean));
  main.setAttribute('aria-busy', 'false');
  document.title = title;
  scrollTo(0, 0);
  heading.focus({ preventScroll: true });
}

/** Lets screen readers read this, without moving the focus. */
export function announce(text) {
  const live = document.getElementById('live');
  live.textContent = '';
  // A text that does not change is not read again.
  requestAnimationFrame(() => (live.textContent = text));
}

/** The value of the document's `<meta>` of this name. */
export function meta(name) {
  return document.querySelector(`meta[name="${name}"]`)?.content ?? '';
}
