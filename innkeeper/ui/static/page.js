// The page of Innkeeper. Everything that a model, a file or a person wrote reaches the page as
// textContent: it is shown, and never run.

const POLL_MS = { loading: 500, other: 4000 };
const $ = (id) => document.getElementById(id);
const turns = []; // {role, content}
let running = null; // AbortController of the reply that is being generated
let ready = false;
let greeter = ""; // name of the character who spoke first

// --- the server -----------------------------------------------------------------------------

function headers(extra = {}) {
  const key = sessionStorage.getItem("innkeeper-key");
  return key ? { ...extra, Authorization: `Bearer ${key}` } : extra;
}

async function poll() {
  let wait = POLL_MS.other;
  try {
    const response = await fetch("innkeeper/v1/state", { headers: headers() });
    $("key-form").hidden = response.status !== 401;
    if (response.status === 401) {
      showStatus("failed", "This server asks for its key");
    } else {
      const state = await response.json();
      showState(state);
      if (state.status !== "ready") wait = POLL_MS.loading;
    }
  } catch {
    ready = false;
    showStatus("away", "The server does not answer");
    showButtons();
  }
  setTimeout(poll, wait);
}

function showStatus(state, text) {
  $("status").dataset.state = state;
  if ($("status").textContent !== text) $("status").textContent = text;
}

function showState(state) {
  const { status, model } = state;
  ready = status === "ready";
  const percent = Math.round(state.fraction * 100);
  const texts = {
    ready: model ? `${model.name} is ready` : "Ready",
    loading: `Loading the model: ${state.stage} ${percent} %`,
    restarting: "The engine is restarting",
    failed: state.error ?? "Loading failed",
    none: "No model is loaded",
  };
  showStatus(status, texts[status] ?? status);
  $("load").hidden = status !== "loading";
  $("load").value = state.fraction;
  $("api-url").textContent = state.api_url;
  $("openai-url").textContent = `${state.api_url}v1`;
  $("docs").href = `${state.api_url}docs`;
  showModel(model, state.version);
  if (ready && state.persona) greet(state.persona);
  showButtons();
}

// The built-in model comes with a character: it speaks first, in a chat that has not begun.
function greet({ name, system, greeting }) {
  if (greeter || turns.length) return;
  greeter = name;
  if (!$("system").value) $("system").value = system;
  addTurn("assistant", greeting);
}

function showModel(model, version) {
  const facts = model
    ? [
        ["Name", model.name],
        ["Kind", model.description || model.architecture],
        ["Size", `${(model.size_bytes / 2 ** 20).toFixed(1)} MiB`],
        ["Context", `${model.num_ctx} tokens (trained: ${model.num_ctx_train})`],
        ["Runs on", place(model)],
        ["At once", `${model.max_sequences} replies`],
      ]
    : [];
  facts.push(["Innkeeper", version]);
  $("facts").replaceChildren(...facts.flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
  $("warnings").replaceChildren(...(model?.warnings ?? []).map((text) => element("li", text)));
  $("context").textContent = model ? String(model.num_ctx) : "";
}

function place(model) {
  if (!model.num_gpu_layers) return model.device;
  return `GPU (${model.num_gpu_layers} of ${model.num_layers} layers)`;
}

function element(name, text, className = "") {
  const node = document.createElement(name);
  node.textContent = text;
  if (className) node.className = className;
  return node;
}

// --- the chat -------------------------------------------------------------------------------

function addTurn(role, content) {
  const turn = { role, content };
  turns.push(turn);
  const node = element("article", "", `turn ${role}`);
  turn.text = element("p", content);
  turn.note = element("small", "");
  node.append(element("h3", role === "user" ? "You" : greeter || "Model"), turn.text, turn.note);
  turn.node = node;
  $("empty").hidden = true;
  $("log").append(node);
  scroll();
  return turn;
}

function dropTurn() {
  turns.pop()?.node.remove();
}

function scroll() {
  $("log").scrollTop = $("log").scrollHeight;
}

function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

function body() {
  const system = $("system").value.trim();
  const messages = turns.map(({ role, content }) => ({ role, content }));
  if (system) messages.unshift({ role: "system", content: system });
  return JSON.stringify({
    messages,
    max_tokens: Math.trunc(bounded($("max-tokens"), 512)),
    temperature: bounded($("temperature"), 0.8),
  });
}

function bounded(input, fallback) {
  const value = input.valueAsNumber;
  if (Number.isNaN(value)) return fallback;
  return Math.min(Math.max(value, Number(input.min)), Number(input.max));
}

async function* lines(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) yield JSON.parse(part);
  }
}

async function reply() {
  notice("");
  running = new AbortController();
  showButtons();
  const request = body();
  const turn = addTurn("assistant", "");
  try {
    const response = await fetch("innkeeper/v1/chat", {
      method: "POST",
      headers: headers({ "Content-Type": "application/json" }),
      body: request,
      signal: running.signal,
    });
    if (!response.ok) throw new Error((await response.json()).error?.message ?? `status ${response.status}`);
    for await (const line of lines(response.body)) show(line, turn);
  } catch (error) {
    if (error.name === "AbortError") turn.note.textContent = "stopped";
    else notice(`No reply: ${error.message}`);
  }
  if (!turn.content && turns.at(-1) === turn) dropTurn();
  running = null;
  showButtons();
  $("message").focus();
}

function show(line, turn) {
  if (line.error) throw new Error(line.error);
  if (line.text) {
    const atEnd = $("log").scrollHeight - $("log").scrollTop - $("log").clientHeight < 40;
    turn.content += line.text;
    turn.text.textContent = turn.content;
    if (atEnd) scroll();
  }
  if (line.done) turn.note.textContent = summary(line);
}

function summary({ done, timings, warnings }) {
  const seconds = timings.predicted_ms / 1000;
  const rate = seconds > 0 ? `, ${(timings.predicted_n / seconds).toFixed(1)} tokens/s` : "";
  const end = done === "length" ? "; the length limit ended it" : "";
  const read = timings.cache_n + (timings.cache_approx_n ?? 0);
  const prompt = `prompt ${timings.prompt_n} read, ${read} reused`;
  return [`${timings.predicted_n} tokens${rate}; ${prompt}${end}`, ...warnings].join(" · ");
}

function showButtons() {
  const busy = running !== null;
  $("message").disabled = !ready && !busy;
  $("send").disabled = !ready || busy;
  $("send").hidden = busy;
  $("stop").hidden = !busy;
  $("regenerate").disabled = !ready || busy || !turns.some((turn) => turn.role === "user");
  $("clear").disabled = busy || turns.length === 0;
}

function send() {
  const text = $("message").value.trim();
  if (!text || !ready || running) return;
  if (turns.at(-1)?.role === "user") dropTurn(); // its reply failed: this message replaces it
  $("message").value = "";
  addTurn("user", text);
  reply();
}

function regenerate() {
  if (running || !ready) return;
  if (turns.at(-1)?.role === "assistant") dropTurn();
  if (turns.length) reply();
}

// --- events ---------------------------------------------------------------------------------

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
$("message").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
});
$("stop").addEventListener("click", () => running?.abort());
$("regenerate").addEventListener("click", regenerate);
$("clear").addEventListener("click", () => {
  while (turns.length) dropTurn();
  greeter = "";
  $("empty").hidden = false;
  notice("");
  showButtons();
});
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("innkeeper-key", $("key").value);
  $("key").value = "";
  location.reload();
});
for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const source = $(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(source); // no clipboard without a secure origin
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
}

poll();
