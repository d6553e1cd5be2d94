// The sandbox page: renders the state it polls, and posts what visitors do.

const main = document.querySelector("main");
const toastBox = document.querySelector(".toast");
const phones = new Map();
let records;

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

let toastTimer;
function toast(text) {
  toastBox.textContent = text;
  toastBox.classList.add("shown");
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => toastBox.classList.remove("shown"), 3000);
}

async function post(path, body) {
  try {
    const answer = await fetch(path, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    const json = answer.status === 204 ? {} : await answer.json();
    if (!answer.ok) throw new Error(json.error);
    return json;
  } catch (error) {
    toast(error.message || "The sandbox is not responding.");
    return null;
  }
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    toast("Copied.");
  } catch {
    toast("The browser did not allow copying.");
  }
}

// Renders a text with its entities, whose offsets count UTF-16 units.
function formatted(text, entities) {
  const marks = new Set([0, text.length]);
  for (const entity of entities) {
    marks.add(entity.offset).add(entity.offset + entity.length);
  }
  const ordered = [...marks].sort((a, b) => a - b);
  const out = document.createDocumentFragment();
  for (let i = 0; i + 1 < ordered.length; i++) {
    let node = document.createTextNode(text.slice(ordered[i], ordered[i + 1]));
    for (const entity of entities) {
      if (entity.offset <= ordered[i] && ordered[i + 1] <= entity.offset + entity.length) {
        node = wrap(node, entity);
      }
    }
    out.append(node);
  }
  return out;
}

const TAGS = { bold: "b", italic: "i", underline: "u", strikethrough: "s", pre: "pre" };

function wrap(node, entity) {
  let element;
  if (entity.type === "code") {
    element = make("code");
    const content = node.textContent;
    element.tabIndex = 0;
    element.setAttribute("role", "button");
    element.title = "Copy";
    element.addEventListener("click", () => copy(content));
    element.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        copy(content);
      }
    });
  } else if (entity.type === "text_link") {
    element = make("a");
    element.href = entity.url;
    element.target = "_blank";
    element.rel = "noreferrer";
  } else {
    element = make(TAGS[entity.type] || "span");
  }
  element.append(node);
  return element;
}

function fill(element, person, message) {
  const focused = [...element.querySelectorAll("button")].indexOf(document.activeElement);
  const bubble = make("div", "bubble");
  if (message.photo) {
    const image = make("img");
    image.src = `photo/${person.id}/${message.id}`;
    image.alt = "QR code";
    bubble.append(image);
  }
  bubble.append(formatted(message.text, message.entities));
  const time = new Date(message.date * 1000).toLocaleTimeString([], { timeStyle: "short" });
  bubble.append(make("time", "", (message.edited ? "edited " : "") + time));
  element.replaceChildren(bubble);
  if (message.keyboard.length) {
    const keyboard = make("div", "keyboard");
    for (const row of message.keyboard) {
      const line = make("div");
      for (const button of row) {
        const key = make("button", "", button.text);
        key.type = "button";
        key.addEventListener("click", async () => {
          if (button.copy) copy(button.copy);
          const press = { who: person.id, message: message.id, button: button.text };
          const pressed = await post("press", press);
          if (pressed?.open) phones.get(person.id).open(pressed.open);
        });
        line.append(key);
      }
      keyboard.append(line);
    }
    element.append(keyboard);
    // Keeps the focus of keyboard users when the buttons are replaced.
    const keys = keyboard.querySelectorAll("button");
    if (focused >= 0) keys[Math.min(focused, keys.length - 1)].focus();
  }
  return bubble;
}

class Phone {
  constructor(person) {
    this.person = person;
    this.shown = new Map();
    this.notices = 0;
    const section = document.querySelector("#phone").content.firstElementChild.cloneNode(true);
    this.section = section;
    section.id = person.username;
    section.setAttribute("aria-label", `${person.name}'s phone`);
    section.querySelector(".owner").textContent = `${person.name}'s phone · @${person.username}`;
    this.chat = section.querySelector(".chat");
    this.chat.setAttribute("aria-label", `${person.name}'s chat with the bot`);
    this.input = section.querySelector("textarea");
    this.input.setAttribute("aria-label", `Message from ${person.name}`);
    section.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.say(this.input.value);
      this.input.value = "";
      this.grow();
    });
    this.input.addEventListener("input", () => this.grow());
    this.input.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        event.target.form.requestSubmit();
      }
    });
    const faucet = section.querySelector(".faucet");
    faucet.setAttribute("aria-label", `Add test ETH to ${person.name}'s wallet`);
    faucet.addEventListener("click", async () => {
      faucet.disabled = true;
      const filled = await post("faucet", { who: person.id });
      faucet.disabled = false;
      if (filled) toast(`${person.name} received ${filled.coins} ETH and ${filled.tokens} TUSD.`);
    });
    main.append(section);
  }

  // Telegram's web client shows a Mini App in a frame like this.
  open(url) {
    this.close();
    const sheet = make("div", "sheet");
    sheet.setAttribute("role", "dialog");
    sheet.setAttribute("aria-label", `The vault page on ${this.person.name}'s phone`);
    const bar = make("div", "bar");
    const close = make("button", "", "Close");
    close.type = "button";
    close.addEventListener("click", () => this.close());
    bar.append(make("strong", "", "Vault"), make("span", "owner", "opened by Telegram"), close);
    this.frame = make("iframe");
    this.frame.title = "The vault page";
    this.frame.setAttribute("sandbox", "allow-scripts allow-same-origin allow-forms allow-downloads");
    this.frame.src = url;
    sheet.append(bar, this.frame);
    this.section.append(sheet);
    this.frame.focus();
  }

  close() {
    this.section.querySelector(".sheet")?.remove();
    this.frame = undefined;
    this.input.focus({ preventScroll: true });
  }

  // What the page asks of the app that shows it.
  async asked({ eventType, eventData }) {
    if (eventType === "web_app_close") this.close();
    if (eventType === "web_app_open_tg_link") {
      const link = `https://t.me${eventData.path_full}`;
      const opened = await post("open", { who: this.person.id, link });
      if (opened) this.open(opened.open);
    }
  }

  grow() {
    this.input.style.height = "auto";
    this.input.style.height = `${this.input.scrollHeight + 2}px`;
  }

  say(text) {
    if (text.trim()) post("say", { who: this.person.id, text });
  }

  commands(commands) {
    const box = this.section.querySelector(".commands");
    if (box.children.length === commands.length) return;
    box.replaceChildren(...commands.map(([name, description]) => {
      const button = make("button", "", `/${name}`);
      button.type = "button";
      button.title = description;
      button.addEventListener("click", () => this.say(`/${name}`));
      return button;
    }));
  }

  update(person) {
    const atEnd = this.chat.scrollHeight - this.chat.scrollTop - this.chat.clientHeight < 80;
    const ids = new Set(person.messages.map((message) => message.id));
    for (const [id, { element }] of this.shown) {
      if (!ids.has(id)) {
        this.shown.delete(id);
        element.classList.add("gone");
        setTimeout(() => element.remove(), 300);
      }
    }
    for (const message of person.messages) {
      const looks = JSON.stringify(message);
      const old = this.shown.get(message.id);
      if (!old) {
        const element = make("div", message.mine ? "message mine" : "message");
        fill(element, person, message);
        this.chat.append(element);
        this.shown.set(message.id, { element, looks });
      } else if (old.looks !== looks) {
        fill(old.element, person, message).classList.add("changed");
        old.looks = looks;
      }
    }
    if (person.notices.count > this.notices) {
      this.notices = person.notices.count;
      toast(person.notices.last);
    }
    if (atEnd) this.chat.scrollTop = this.chat.scrollHeight;
  }
}

addEventListener("message", ({ source, origin, data }) => {
  for (const phone of phones.values()) {
    if (!phone.frame || source !== phone.frame.contentWindow) continue;
    if (origin === new URL(phone.frame.src).origin) phone.asked(JSON.parse(data));
  }
});

async function steal(event) {
  const list = records.querySelector(".thief");
  if (event.target.getAttribute("aria-pressed") === "true") {
    event.target.setAttribute("aria-pressed", "false");
    list.replaceChildren();
    return;
  }
  event.target.disabled = true;
  const attempts = await post("steal", {});
  event.target.disabled = false;
  if (!attempts) return;
  event.target.setAttribute("aria-pressed", "true");
  list.replaceChildren(...attempts.map(({ what, came, done }) => {
    const item = make("li");
    item.append(make("div", "", what), make("span", done ? "bad" : "good", came));
    return item;
  }));
}

const short = (hex) => (hex ? `${hex.slice(0, 8)}…${hex.slice(-4)}` : "a new contract");

function showRecords(state) {
  const mining = records.querySelector(".mining");
  mining.textContent = state.mining ? "Pause mining" : "Resume mining";
  mining.setAttribute("aria-pressed", String(!state.mining));
  const names = new Map(state.people.map((person) => [person.id, person.name]));
  records.querySelector(".blocks").replaceChildren(...state.blocks.map((block) => {
    const item = make("li");
    const count = block.transactions.length;
    item.append(make("b", "", `Block ${block.number}`));
    item.append(make("span", "", count ? "" : " · empty"));
    for (const transaction of block.transactions) {
      const line = make("div", "", `${transaction.amount} `);
      line.append(make("span", "hash", `${short(transaction.from)} → ${short(transaction.to)}`));
      item.append(line, make("span", "hash", short(transaction.hash)));
    }
    return item;
  }));
  showMails(state.mails);
  records.querySelector(".audit").replaceChildren(...state.audit.map((row) => {
    const item = make("li");
    const result = row.outcome || row.phase;
    const tone = row.phase === "intent" ? "" : row.outcome === "ok" ? "good" : "bad";
    item.append(make("b", "", `${row.sequence} `), `${row.action} `);
    item.append(make("span", tone, `· ${row.phase}${row.outcome ? ": " + row.outcome : ""} `));
    item.append(make("span", "", names.has(row.telegram_id) ? `· ${names.get(row.telegram_id)}` : ""));
    item.title = `${new Date(row.at).toLocaleString()}: ${result}, requested by ${row.actor}`;
    return item;
  }));
}

let shownMails = "";

// Renders only when there is a new e-mail, so that an opened one stays open.
function showMails(mails) {
  const looks = JSON.stringify(mails);
  if (looks === shownMails) return;
  shownMails = looks;
  records.querySelector(".mails").replaceChildren(...mails.map((mail, index) => {
    const item = make("li");
    const details = make("details");
    details.open = index === 0;
    details.append(make("summary", "", mail.subject), make("div", "hint", `to ${mail.to}`));
    const body = make("pre", "mail");
    for (const part of mail.body.trim().split(/(https:\/\/\S+)/)) {
      if (!part.startsWith("https://")) {
        body.append(part);
        continue;
      }
      const link = make("a", "", part);
      link.href = part;
      link.target = "_blank";
      link.rel = "noreferrer";
      body.append(link);
    }
    details.append(body);
    item.append(details);
    return item;
  }));
}

function select(section, button) {
  for (const other of main.children) other.classList.toggle("selected", other === section);
  for (const other of document.querySelectorAll(".tabs button")) {
    other.setAttribute("aria-pressed", String(other === button));
  }
}

function build(state) {
  for (const person of state.people) phones.set(person.id, new Phone(person));
  records = document.querySelector("#records").content.firstElementChild.cloneNode(true);
  records.id = "written";
  records.querySelector(".mining").addEventListener("click", (event) => {
    post("mining", { on: event.target.getAttribute("aria-pressed") === "true" });
  });
  records.querySelector(".steal").addEventListener("click", steal);
  main.append(records);
  const tabs = document.querySelector(".tabs");
  const labels = [...state.people.map((person) => person.name), "Records"];
  [...main.children].forEach((section, index) => {
    const button = make("button", "", labels[index]);
    button.type = "button";
    button.addEventListener("click", () => select(section, button));
    tabs.append(button);
    if (index === 0) select(section, button);
  });
  phones.values().next().value.input.focus({ preventScroll: true });
}

async function follow() {
  let version = "";
  for (;;) {
    try {
      const answer = await fetch(`state?after=${version}`);
      const state = await answer.json();
      if (!phones.size) build(state);
      version = state.version;
      for (const person of state.people) {
        phones.get(person.id).commands(state.commands);
        phones.get(person.id).update(person);
      }
      showRecords(state);
    } catch (error) {
      console.error(error);
      toast("The sandbox has stopped.");
      await new Promise((resolve) => setTimeout(resolve, 2000));
    }
  }
}

follow();
