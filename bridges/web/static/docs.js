/** The HTTP interface, to read and to try: made from /openapi.json, with nothing from elsewhere. */

const main = document.getElementById("main");

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const json = (value) => make("pre", { tabindex: "0" }, JSON.stringify(value, null, 2));

/** The schema behind a reference. */
function resolved(document, schema) {
  return schema?.$ref ? schema.$ref.slice(2).split("/").reduce((at, key) => at[key], document) : schema;
}

function table(head, lines) {
  return make("div", { class: "scroll" }, make("table", {},
    make("thead", {}, make("tr", {}, ...head.map((name) => make("th", { scope: "col" }, name)))),
    make("tbody", {}, ...lines.map((line) => make("tr", {}, ...line.map((cell) => make("td", { class: "wrap" }, cell)))))));
}

function typeOf(document, schema) {
  const found = resolved(document, schema) ?? {};
  if (found.anyOf) return found.anyOf.map((each) => typeOf(document, each)).join(" or ");
  if (found.type === "array") return `list of ${typeOf(document, found.items)}`;
  return found.type ?? "anything";
}

function members(document, schema) {
  const { properties = {}, required = [] } = resolved(document, schema) ?? {};
  return Object.entries(properties).map(([name, it]) => [
    make("code", {}, name), typeOf(document, it), required.includes(name) ? "yes" : "no", it.description ?? ""]);
}

/** A form that sends the request and shows the answer. */
function trial(document, method, path, operation) {
  const body = operation.requestBody?.content["application/json"];
  const example = body && (resolved(document, body.schema).examples?.[0] ?? {});
  const form = make("form");
  const area = make("textarea", { spellcheck: "false", "aria-label": "Body" });
  if (body) {
    area.value = JSON.stringify(example, null, 2);
    form.append(area);
  }
  const fields = (operation.parameters ?? []).map((it) => {
    const field = make("input", { name: it.name, placeholder: it.schema.examples?.[0] ?? it.name, "aria-label": it.name });
    form.append(make("label", {}, `${it.name} `, field), " ");
    return field;
  });
  const output = make("div", { role: "status" });
  form.append(make("button", {}, "Send"), output);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const query = new URLSearchParams(fields.map((field) => [field.name, field.value || field.placeholder]));
    const token = sessionStorage.getItem("token");
    const headers = { ...(body && { "Content-Type": "application/json" }), ...(token && { Authorization: `Bearer ${token}` }) };
    const stop = new AbortController();
    const answer = await fetch(path + (fields.length ? `?${query}` : ""), { method, headers, body: body && area.value, signal: stop.signal });
    const shown = make("pre", { tabindex: "0" });
    output.replaceChildren(make("p", {}, `${answer.status} ${answer.headers.get("content-type") ?? ""}`), shown);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let size = 0; size < 100_000; ) {
      const { value, done } = await reader.read();
      if (done) return;
      size += value.length;
      shown.append(value);
    }
    stop.abort(); // a stream of events would go on for ever
  });
  return form;
}

function section(document, path, method, operation) {
  const body = operation.requestBody?.content["application/json"];
  const parts = [make("p", {}, operation.description ?? "")];
  if (body) parts.push(make("h3", {}, "Body"), table(["Member", "Type", "Needed", ""], members(document, body.schema)));
  if (operation.parameters?.length) {
    parts.push(make("h3", {}, "Query"), table(["Name", "Type", "Needed"],
      operation.parameters.map((it) => [make("code", {}, it.name), typeOf(document, it.schema), it.required ? "yes" : "no"])));
  }
  const answers = Object.entries(operation.responses).map(([status, it]) => [status, it.description, Object.keys(it.content ?? {}).join(", ")]);
  parts.push(make("h3", {}, "Answers"), table(["Status", "", "Type"], answers));
  const ok = Object.values(operation.responses["200"].content ?? {})[0];
  const shape = resolved(document, ok?.schema?.items ?? ok?.schema);
  if (shape?.properties) parts.push(table(["Member", "Type", "Always", ""], members(document, shape)));
  if (ok?.example) parts.push(make("pre", {}, ok.example));
  parts.push(make("h3", {}, "Try it"), trial(document, method.toUpperCase(), path, operation));
  return make("details", { class: "pane operation" },
    make("summary", {}, make("span", { class: "method" }, method.toUpperCase()), make("code", {}, path), ` ${operation.security ? "" : "(no token)"}`), ...parts);
}

document.getElementById("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", document.getElementById("token").value.trim());
  document.getElementById("token").value = "";
});

const description = await (await fetch("/openapi.json")).json();
document.getElementById("title").textContent = `HTTP interface of ${description.info.title} ${description.info.version}`;
main.append(make("p", { class: "wide" }, description.info.description.replaceAll("`", "")));
for (const [path, item] of Object.entries(description.paths)) {
  for (const [method, operation] of Object.entries(item)) main.append(section(description, path, method, operation));
}
main.append(make("details", { class: "pane operation" }, make("summary", {}, "The whole description"), json(description)));
