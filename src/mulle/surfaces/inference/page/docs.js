"use strict";
const at = (id) => document.getElementById(id);
const option = (text) => Object.assign(document.createElement("option"), { value: text, textContent: text });
let spec = null;

function headers(more) {
  const token = at("token").value;
  return token ? { ...more, authorization: `Bearer ${token}` } : more;
}

function say(text, bad) {
  at("status").textContent = text;
  at("status").className = bad ? "bad" : "";
}

async function get(path) {
  const answer = await fetch(path, { headers: headers({}) });
  const found = await answer.json();
  if (!answer.ok) throw new Error(`${answer.status}: ${found.detail}`);
  return found;
}

async function models() {
  try {
    const found = await get("/v1/models");
    at("model").replaceChildren(...found.items.map((item) => option(item.id)));
    say(found.items.length ? "" : "No model is deployed here.");
    if (found.items.length) await model();
  } catch (error) {
    say(error.message, true);
  }
}

async function model() {
  try {
    const name = at("model").value.split("/").map(encodeURIComponent).join("/");
    spec = await get(`/v1/models/${name}/openapi.json`);
    at("path").replaceChildren(...Object.keys(spec.paths).filter((path) => spec.paths[path].post).map(option));
    path();
  } catch (error) {
    say(error.message, true);
  }
}

function content() {
  return spec.paths[at("path").value].post.requestBody.content["application/json"];
}

function path() {
  at("summary").textContent = spec.paths[at("path").value].post.summary;
  at("body").value = JSON.stringify(content().example, null, 2);
  fields();
}

function rows(body) {
  return body.rows || body.dataframe_records || [];
}

function fields() {
  const properties = Object.values(spec.components.schemas).find((schema) => schema.additionalProperties === false && schema.properties);
  const first = rows(content().example)[0];
  at("fields").hidden = !first;
  at("fields").replaceChildren(at("fields").querySelector("legend"), ...Object.entries(first || {}).map(([name, value]) => {
    const known = properties.properties[name];
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), { value: value === null ? "" : String(value), name });
    input.title = known.description || known.type.join(" or ");
    input.addEventListener("input", () => change(name, input.value, known.type));
    label.append(name, input);
    return label;
  }));
}

function change(name, text, types) {
  try {
    const body = JSON.parse(at("body").value);
    const number = types.includes("number") || types.includes("integer");
    const value = text === "" && !types.includes("string") ? null
      : types.includes("boolean") ? text === "true"
      : number && Number.isFinite(Number(text)) ? Number(text) : text;
    rows(body)[0][name] = value;
    at("body").value = JSON.stringify(body, null, 2);
  } catch (error) {
    say(`The body is not JSON: ${error.message}`, true);
  }
}

async function send(event) {
  event.preventDefault();
  const begun = performance.now();
  try {
    const answer = await fetch(encodeURI(at("path").value), {
      method: "POST", headers: headers({ "content-type": "application/json" }), body: at("body").value,
    });
    const text = await answer.text();
    say(`${answer.status} in ${(performance.now() - begun).toFixed(1)} ms`, !answer.ok);
    at("answer").textContent = JSON.stringify(JSON.parse(text), null, 2);
  } catch (error) {
    say(error.message, true);
  }
}

at("model").addEventListener("change", model);
at("path").addEventListener("change", path);
at("token").addEventListener("change", models);
at("ask").addEventListener("submit", send);
models();
